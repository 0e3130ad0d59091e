#!/usr/bin/env python3
"""Runs every check on a peer: compare.py PROGRAM CHECKS.tsv RUNTIME

Fails when the list in CHECKS.tsv is not the program's, or when the peer fails a check without a reason
there, or passes one with.
"""
import concurrent.futures
import shutil
import subprocess
import sys


def main(program, table, runtime):
    path = shutil.which(runtime)
    if path is None:
        print(f'{runtime} is not installed')
        return 77
    with open(table) as file:
        reasons = dict(line.rstrip('\n').split('\t') for line in file if not line.startswith('#'))
    known = subprocess.run([program, '--list'], check=True, capture_output=True, text=True).stdout.split()
    if known != sorted(reasons):
        print('checks.tsv and the program differ:', sorted(set(known) ^ set(reasons)))
        return 1

    def check(name):
        return name, subprocess.run([program, path, name], capture_output=True, text=True)

    wrong = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, result in pool.map(check, known):
            expected = bool(reasons[name])
            if result.returncode == 77 or (result.returncode != 0) == expected:
                continue
            wrong += 1
            print(f'{runtime} {"passes" if expected else "fails"} {name}: {result.stdout.strip()}')
    print(f'{len(known)} checks on {runtime}, {sum(map(bool, reasons.values()))} known to fail, {wrong} surprises')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
