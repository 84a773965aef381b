# 9. The page, of sound alone.
import subprocess
from urllib.request import Request, urlopen

command = ["mer-run", "ia-compact-int8", "clip.mp4", "--pace", "real", "--no-video", "--serve", "0"]
service = subprocess.Popen(command, stderr=-1, text=True)
url = next(line.split()[1] for line in service.stderr if line.startswith("Page: "))
print(urlopen(Request(url, method="HEAD")).status, urlopen(url).read().decode())
service.terminate()
