# 1. A long clip is a timeline: a table, a picture, and the share of the time of each emotion.
mer-run ia-compact-int8 long.mkv --timeline answers.csv
mer-run ia-compact-int8 long.mkv --timeline answers.png --faces all
