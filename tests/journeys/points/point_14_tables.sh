# 14. A table for a paper: float against quantised.
mer-eval ia-compact ia-compact-int8 cache --table models.tex --plot models.svg
cat models.tex
