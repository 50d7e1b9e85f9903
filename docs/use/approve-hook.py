#!/usr/bin/env python3
"""Approval program for `peersock controller --approve-hook`: admits the machines of a list.

Each line of ~/machines.txt is the name of a machine, and the tags that it gets. Machines that show an invite
are admitted in any case; whoever was taken from the list gets no other certificate.
"""
import json
import pathlib
import sys

question = json.load(sys.stdin)
# An exception ends the program with status 1, and then nobody is admitted.
lines = (pathlib.Path.home() / "machines.txt").read_text().splitlines()
tags = {words[0]: words[1:] for words in map(str.split, lines) if words}
if question["name"] in tags:
    answer = {"decision": "allow", "tags": tags[question["name"]]}
elif question["invite"]:
    answer = {"decision": "ask"}
else:
    answer = {"decision": "deny", "reason": "not in the list"}
json.dump(answer, sys.stdout)
