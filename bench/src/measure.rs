//! What is read off a process and off the kernel: CPU time, memory, instructions, system calls.

pub(crate) mod counts;
pub(crate) mod cpu;
pub(crate) mod kernel;
pub(crate) mod memory;
