# 8. A service: its options in a file, its health and figures for programs.
import subprocess
from urllib.request import urlopen

service = subprocess.Popen(["mer-run", "--config", "mer.toml"], stdout=-1, stderr=-1, text=True)
url = next(line.split()[1] for line in service.stderr if line.startswith("Page: "))
print(service.stdout.readline())  # the first answer
print(urlopen(url + "health").read(), urlopen(url + "metrics").read())
service.terminate()
print("ended with", service.wait())
