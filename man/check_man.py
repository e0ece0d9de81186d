#!/usr/bin/env python3
"""Compares the manual's source with what the program's --help says: commands, flags, and words about ignored flags.

usage: check_man.py MANUAL.scd PROGRAM
"""

import re
import subprocess
import sys


def help_of(program, *words):
    """What PROGRAM [WORDS] --help prints on stdout; it must exit 0 and print nothing else."""
    done = subprocess.run([program, *words, "--help"], capture_output=True, text=True, check=True, timeout=30,
                          stdin=subprocess.DEVNULL)
    if done.stderr:
        sys.exit(f"{' '.join(words)} --help writes to stderr: {done.stderr}")
    return done.stdout


def section(text, title):
    """The lines of one section of a help text."""
    found = re.search(rf"^{title}:\n((?:   .*\n)*)", text, re.MULTILINE)
    return found.group(1).splitlines() if found else []


def flags_of_help(text):
    """{(long, letter, value name): help text}."""
    flags = {}
    for line in section(text, "(?:GLOBAL )?FLAGS"):
        left, _, right = line.strip().partition("  ")
        found = re.fullmatch(r"--([a-z0-9-]+)(?: (\S+))?(?:, -(\w)(?: \S+)?)?", left)
        if not found:
            sys.exit(f"help line not understood: {line!r}")
        flags[found.group(1), found.group(3), found.group(2)] = right.strip()
    return flags


def flags_of_manual(lines):
    """The same from a section of the manual; the text is the paragraph below the flag."""
    flags = {}
    current = None
    for line in lines:
        found = re.fullmatch(r"(?:\*-(\w)\*, )?\*--([a-z0-9-]+)\*(?: _(\S+)_)?", line)
        if found:
            current = (found.group(2), found.group(1), found.group(3))
            flags[current] = ""
        elif line.startswith("\t") and current:
            flags[current] += line.strip() + " "
        elif line:
            current = None
    return flags


def manual_sections(path):
    """{"" or command name: lines of its sections}."""
    sections, name = {}, None
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line.startswith("# "):
                name = "" if line == "# GLOBAL FLAGS" else None
            elif line.startswith("## "):
                name = line.split()[1]
            elif name is not None:
                sections.setdefault(name, []).append(line)
                continue
            if name is not None:
                sections.setdefault(name, [])
    return sections


def main():
    manual, program = sys.argv[1:]
    sections = manual_sections(manual)
    top = help_of(program)
    commands = {line.split()[0] for line in section(top, "COMMANDS")}
    problems = []
    if commands != set(sections) - {""}:
        problems.append(f"commands only in one of manual and help: {sorted(commands ^ (set(sections) - {''}))}")
    for name in sorted(commands & set(sections)) + [""]:
        shown = name or "global flags"
        helped = flags_of_help(help_of(program, name) if name else top)
        written = flags_of_manual(sections.get(name, []))
        for flag in sorted(set(helped) ^ set(written), key=str):
            problems.append(f"{shown}: {flag} only in the {'help' if flag in helped else 'manual'}")
        for flag in set(helped) & set(written):
            if not written[flag].strip():
                problems.append(f"{shown}: {flag} has no text in the manual")
            if "ignored" in helped[flag] and "gnored" not in written[flag]:
                problems.append(f"{shown}: the manual does not say that {flag} is ignored")
    if problems:
        sys.exit("\n".join(problems))


main()
