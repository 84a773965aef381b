# 10. Cameras and microphones by number or by the name that the system gives them.
from mer_runtime import Input, LiveSession, MerError, Recognizer, camera

try:
    list(LiveSession(Recognizer.load("ia-compact-int8"), [Input(camera("97"))]).run())
except MerError as error:
    print(error)
