#!/usr/bin/env python3
"""Approval program for `peersock controller --approve-hook`: admits the machines of a list.

Each line of ~/machines.txt is the node ID of a machine, which `peersock id` prints there, the name that it
gets, and its tags. Anybody can wish for any name, so only the ID says which machine it is.

Others need an invite. Members that are not in the list stay members: `peersock network revoke` removes one.
"""
import json
import pathlib
import sys

question = json.load(sys.stdin)
# An exception ends the program with status 1, and then nobody is admitted.
lines = (pathlib.Path.home() / "machines.txt").read_text().splitlines()
listed = {words[0]: words[1:] for words in map(str.split, lines) if words}
if question["node"] in listed:
    name, *tags = listed[question["node"]]
    answer = {"decision": "allow", "tags": tags}
    if question["event"] == "join":
        answer["name"] = name
elif question["event"] == "renewal" or question["invite"]:
    answer = {"decision": "ask"}
else:
    answer = {"decision": "deny", "reason": "not in the list"}
json.dump(answer, sys.stdout)
