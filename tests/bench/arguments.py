"""What the benches on many ways take on their command lines, and how they are ended."""

import argparse
import os
import signal
import sys


def parser(about, extents):
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--program", type=os.path.realpath, required=True)
    parser.add_argument("--work", type=os.path.realpath, required=True, help="a folder for sparse disks")
    parser.add_argument("--base", type=os.path.realpath, required=True, help="the tar of a root file system")
    parser.add_argument("--extent", choices=extents, required=True)
    parser.add_argument("--weighed", type=os.path.realpath, help="what cross/weigh printed")
    parser.add_argument("--write", type=os.path.realpath, help="the folder for the document and its plots")
    return parser


def end_as_exception():
    """SIGTERM becomes an exception, so that what was begun is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
