"""What an operator does with files of sampling policies: take them over from a Collector, check them."""

import argparse
import os
import sys


def sampling_import(args: argparse.Namespace) -> int:
    """A Collector's policies on standard output, what could not be carried over on standard error."""
    from spanloom.config import import_policies

    imported = import_policies(args.file, args.processor)
    sys.stdout.write(imported.text)
    for note in imported.notes:
        print(note, file=sys.stderr)
    return 0


def sampling_check(args: argparse.Namespace) -> int:
    """Say whether a file of policies is good."""
    from spanloom.config import read_policies

    policies = read_policies(args.file, os.environ)
    print(f"{len(policies)} policies are good: {', '.join(str(policy['name']) for policy in policies)}")
    return 0
