# 15. What is in a bundle's graphs: layers, numbers, what stays in float and why.
mer-export --inspect ia-compact-int8
