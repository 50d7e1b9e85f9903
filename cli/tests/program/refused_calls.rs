//! Sandboxes that deny system calls: commands that cannot work say so.

use std::process::Command;

use crate::common::{Lab, lacks, run, without_variables};

/// Script that makes the kernel deny a call, by its number, with an error, and executes a program.
const REFUSE: &str = "import ctypes, os, struct, sys
number, error, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
# Loads the call's number; equal: the error, otherwise: allowed.
filter = b''.join(struct.pack('=HBBI', *instruction) for instruction in [
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(filter)
class Program(ctypes.Structure):
    _fields_ = ('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
described = Program(len(filter) // 8, ctypes.cast(buffer, ctypes.c_void_p).value)
assert libc.prctl(22, 2, ctypes.byref(described), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(program[0], program)
";

#[test]
fn a_node_and_a_root_that_could_not_receive_say_which_call_is_refused() {
    let test = "a_node_and_a_root_that_could_not_receive_say_which_call_is_refused";
    if lacks(test, &["python3"]) {
        return;
    }
    let lab = Lab::new();
    // All networks of the lab allow this port.
    let listen = lab.node("a", &["listen", "32768"]);
    let root = lab.command("r", &["root", "--listen", "127.0.0.1:0"]);
    for asked in [listen, root] {
        for error in [libc::ENOSYS, libc::EPERM] {
            let mut command = Command::new("python3");
            command.arg("-c").arg(REFUSE).arg(libc::SYS_recvmmsg.to_string()).arg(error.to_string());
            command.arg(asked.get_program()).args(asked.get_args());
            without_variables(&mut command);
            run(command).failure(1, &["recvmmsg", "profile of the sandbox"]);
        }
    }
}
