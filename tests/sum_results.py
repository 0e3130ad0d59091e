"""Adds up test results and prints `N passed, N failed, N skipped`.

Every GoogleTest program wrote an XML file with its cases; a program without one (a corpus run, a lint
script, a crash) counts as one test with ctest's verdict. Exit code 1 when anything failed.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def main(folder: str, ctest_failed: str) -> int:
    results = pathlib.Path(folder)
    passed = failed = skipped = 0
    counted = set()
    for path in sorted(results.glob("*.xml")):
        counted.add(path.stem)
        for case in ElementTree.parse(path).iter("testcase"):
            if case.find("failure") is not None:
                failed += 1
                print(f"failed: {path.stem}: {case.get('classname')}.{case.get('name')}")
            elif case.find("skipped") is not None or case.get("result") == "skipped":
                skipped += 1
                reason = case.find("skipped")
                text = (reason.get("message") or "").strip().splitlines() if reason is not None else []
                print(f"skipped: {case.get('classname')}.{case.get('name')}: {text[-1] if text else ''}")
            else:
                passed += 1
    for case in ElementTree.parse(results / "ctest.junit").iter("testcase"):
        name, status = case.get("name"), case.get("status")
        if status == "fail":
            # A program that died has no XML, or one without a failed case.
            failed += 1
            print(f"failed: {name}")
        elif name not in counted:
            if status == "run":
                passed += 1
            else:
                skipped += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or ctest_failed != "0" or passed == 0 else 0


sys.exit(main(sys.argv[1], sys.argv[2]))
