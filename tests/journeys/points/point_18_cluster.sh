# 18. A folder answered by a Ray cluster.
mer-run ia-compact-int8 clips --ray local --jobs 1 --json-out answers.jsonl
cat answers.jsonl
