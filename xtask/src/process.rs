//! Running other programs, and where this repository is.
//!
//! A program that fails becomes one sentence that names the whole command line, so that a person
//! can run it by hand. Nothing here is a shell: arguments are passed on as they are.

use std::env;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's root: the directory above this package's.
pub(crate) fn root() -> PathBuf {
    // `cargo run` sets the variable anew; the built-in path is from before the clone was moved.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map(Path::to_path_buf).unwrap_or(package)
}

/// `program`, to be run in the repository's root.
pub(crate) fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// The cargo that runs this, with `arguments`.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Runs it with the output that we have, and no input. A failure is an error that names the command line.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status =
        command.stdin(Stdio::null()).status().map_err(|fault| not_started(command, &fault))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`{}` failed ({status})", line(command)))
}

/// The same, with its output by the line: each is shown as it comes, and given to `watch`.
pub(crate) fn run_watched(mut command: Command, mut watch: impl FnMut(&str)) -> Result<(), String> {
    let failed = |fault| format!("`{}`: {fault}", line(&command));
    let (reader, writer) = io::pipe().map_err(failed)?;
    let errors = writer.try_clone().map_err(failed)?;
    let words = line(&command);
    command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    let mut child = command.spawn().map_err(|fault| not_started(&command, &fault))?;
    // It has our ends of the pipe, which would have no end otherwise.
    drop(command);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.map_err(|fault| format!("`{words}`: {fault}"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        watch(&line);
    }
    let status = child.wait().map_err(|fault| format!("`{words}`: {fault}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{words}` failed ({status})")) }
}

/// Runs it and returns what it wrote to standard output, without white space around it.
pub(crate) fn read(command: &mut Command) -> Result<String, String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|fault| not_started(command, &fault))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("`{}` failed ({}): {said}", line(command), output.status))
}

/// The target triple that the toolchain at hand builds for by itself.
pub(crate) fn host_target() -> Result<String, String> {
    let said = read(program("rustc").arg("-vV"))?;
    said.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| "`rustc -vV` does not name its host".to_owned())
}

fn not_started(command: &Command, fault: &io::Error) -> String {
    format!("`{}` cannot be run: {fault}", line(command))
}

/// The command line as a person would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    // Our cargo is named by its whole path, which nobody types.
    let program = match program.file_name() {
        Some(name) if name == "cargo" => Path::new(name),
        _ => program,
    };
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
