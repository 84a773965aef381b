# 7. Nothing is sent: no connection to anywhere is made.
strace -f -qq -e trace=connect -o connections.txt mer-run ia-compact-int8 clip.mp4
! grep AF_INET connections.txt
