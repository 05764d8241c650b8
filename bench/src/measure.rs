//! What is read off a process and off the kernel: CPU time, memory, instructions, system calls.

use crate::Fallible;

pub(crate) mod counts;
pub(crate) mod cpu;
pub(crate) mod kernel;
pub(crate) mod memory;
pub(crate) mod sockets;
pub(crate) mod tree;

/// What was read off, or a sentence that says that it could not be.
pub(crate) fn read<T>(value: std::io::Result<T>) -> Fallible<T> {
    value.map_err(|fault| format!("what the kernel says of the proxy: {fault}"))
}
