"""Prints what a wheel requires, extras left out, but for the packages named.

usage: wheel_requirements.py WHEEL [PACKAGE TO LEAVE OUT...]
"""
import re
import sys
import zipfile
from email.parser import Parser

with zipfile.ZipFile(sys.argv[1]) as wheel:
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = Parser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist", [])
for requirement in required:
    name = re.match(r"[A-Za-z0-9._-]+", requirement).group()
    if "extra ==" not in requirement and name not in sys.argv[2:]:
        print(requirement)
