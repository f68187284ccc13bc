"""Ask pip-audit whether the versions in a constraints file have known vulnerabilities; 1 if one has.

pip-audit calls it a success if its service knows none of the packages, as an index without that service answers. Here
what could not be asked is said, in one line.
"""

import json
import subprocess
import sys

program, *files = sys.argv[1:]
for file in files:
    command = [program, "--no-deps", "--disable-pip", "--format", "json", "--requirement", file]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout.strip():
        reason = done.stderr.strip().splitlines()[-1:]
        print(f"{file}: not audited, no vulnerability service could be reached ({' '.join(reason)})")
        continue
    packages = json.loads(done.stdout)["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    print(
        f"{file}: {len(asked)} of {len(packages)} packages audited; the service does not answer for the others"
    )
    for package in asked:
        for found in package["vulns"]:
            print(
                f"  {package['name']} {package['version']}: {found['id']}, mended in {found['fix_versions']}"
            )
    if any(package["vulns"] for package in asked):
        sys.exit(1)
