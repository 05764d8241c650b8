//! `cargo xtask image`: the container image, from a binary that the installed toolchain makes.
//!
//! The `Dockerfile` is for users and starts from an image with Rust in it. Here that part is done by
//! the cargo at hand, and only its last stage is used, read out of that same file, so that there is
//! one truth about what the image is. `FROM scratch` needs no registry.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::process::{self, cargo, program, root};

/// The tag that the image gets.
pub(crate) const TAG: &str = "elbows:latest";

/// How large the image may be, in bytes. A limit of ours: it is to be pulled in a moment.
const MAX_BYTES: u64 = 15_000_000;

/// How the binary is built: one file that needs no other, so that it runs in an empty image. glibc
/// (2.34 and newer) has the lookups in `/etc/hosts` and DNS built in, and uses them in this order
/// without an `/etc/nsswitch.conf`. The `Dockerfile` says the same, and a test compares.
const RUSTFLAGS: &str = "-C target-feature=+crt-static -C strip=symbols";

/// Where the build of the binary and the context of the image are.
const BUILD: &str = "target/image/build";
const CONTEXT: &str = "target/image/context";

/// The revision, marked where the work tree has changes that are in no commit.
const GIT_REVISION: &[&str] = &["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];

/// The Docker engine, as far as this command is concerned.
pub(crate) enum Engine {
    /// It answers.
    Ready,
    /// There is a `docker`, but its engine does not answer, for the reason given.
    Silent(String),
    /// There is no `docker`.
    Absent,
}

/// An image that was built.
pub(crate) struct Image {
    bytes: u64,
}

impl fmt::Display for Image {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.bytes / 1_000_000, self.bytes % 1_000_000 / 10_000);
        write!(out, "{TAG}: {whole}.{rest:02} MB")
    }
}

/// Asks for the local Docker engine.
pub(crate) fn engine() -> Engine {
    if program("docker").arg("--version").output().is_err() {
        return Engine::Absent;
    }
    match process::read(program("docker").args(["version", "--format", "{{.Server.Version}}"])) {
        Ok(_) => Engine::Ready,
        Err(why) => Engine::Silent(why),
    }
}

/// Builds the image, sees that it starts and is small enough, and only then gives it its tag.
pub(crate) fn build() -> Result<Image, String> {
    match engine() {
        Engine::Ready => {}
        Engine::Silent(why) => return Err(format!("the Docker engine does not answer: {why}")),
        Engine::Absent => return Err("the image needs Docker, and there is no `docker`".to_owned()),
    }
    let binary = build_binary()?;
    lay_out_context(&binary).map_err(|fault| format!("{CONTEXT}: {fault}"))?;
    let id = build_image()?;
    let image = examine(&id).inspect_err(|_| discard(&id))?;
    let before = tagged();
    process::run(program("docker").args(["tag", &id, TAG]))?;
    if let Some(before) = before {
        discard(&before);
    }
    Ok(image)
}

/// Returns the path of the binary below the root.
fn build_binary() -> Result<String, String> {
    let target = process::host_target()?;
    // With a target named, the flags do not reach build scripts and macros, which cannot be static.
    process::run(
        cargo(&["build", "--release", "--locked", "--package", "elbows"])
            .args(["--target", &target, "--target-dir", BUILD])
            .env("RUSTFLAGS", RUSTFLAGS),
    )?;
    Ok(format!("{BUILD}/{target}/release/elbows"))
}

/// The directory that Docker is given: the last stage of the Dockerfile and what it copies.
fn lay_out_context(binary: &str) -> std::io::Result<()> {
    let context = root().join(CONTEXT);
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    fs::create_dir_all(context.join("image"))?;
    fs::copy(root().join(binary), context.join("image/elbows"))?;
    let directory = context.join("directories/elbows");
    fs::create_dir_all(&directory)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
    let dockerfile = fs::read_to_string(root().join("Dockerfile"))?;
    fs::write(context.join("Dockerfile"), last_stage(&dockerfile))
}

/// The last stage of a Dockerfile, with what it copies from the stage `build` taken from the context.
fn last_stage(dockerfile: &str) -> String {
    let start = dockerfile.rfind("\nFROM ").map_or(0, |newline| newline + 1);
    let stage = dockerfile.get(start..).unwrap_or(dockerfile);
    stage.replace("COPY --from=build ", "COPY ")
}

/// Returns the id of the image.
fn build_image() -> Result<String, String> {
    let id_file = "target/image/id";
    let mut build = program("docker");
    build.args(["build", "--quiet", "--iidfile", id_file]);
    build.args(["--label", &format!("org.opencontainers.image.version={}", version()?)]);
    // Outside a git work tree (a source archive) there is no revision to name.
    if let Ok(revision) = process::read(program("git").args(GIT_REVISION)) {
        build.args(["--label", &format!("org.opencontainers.image.revision={revision}")]);
    }
    process::run(build.arg(CONTEXT))?;
    let id = fs::read_to_string(root().join(Path::new(id_file)));
    id.map(|id| id.trim().to_owned()).map_err(|fault| format!("{id_file}: {fault}"))
}

fn version() -> Result<String, String> {
    let package = process::read(&mut cargo(&["pkgid", "--package", "elbows"]))?;
    let version = package.rsplit(['#', '@']).next();
    version.map(str::to_owned).ok_or_else(|| format!("no version in {package}"))
}

/// Sees that the image starts and that it is small enough.
fn examine(id: &str) -> Result<Image, String> {
    process::read(program("docker").args(["run", "--rm", "--network", "none", id, "--help"]))
        .map_err(|fault| format!("the image does not start: {fault}"))?;
    let size = ["image", "inspect", "--format", "{{.Size}}", id];
    let size = process::read(program("docker").args(size))?;
    let bytes =
        size.parse().map_err(|_| format!("Docker says that the image has the size `{size}`"))?;
    if bytes > MAX_BYTES {
        return Err(format!(
            "the image has {bytes} bytes, and {MAX_BYTES} are allowed; {TAG} is left as it was"
        ));
    }
    Ok(Image { bytes })
}

/// The id of the image that has the tag.
fn tagged() -> Option<String> {
    let id = ["image", "inspect", "--format", "{{.Id}}", TAG];
    process::read(program("docker").args(id)).ok()
}

/// Removes an image that does not have the tag.
fn discard(id: &str) {
    if tagged().is_some_and(|tagged| tagged == id) {
        return;
    }
    // Refused while a container uses it or it has another tag, which is as it should be.
    let _ = process::read(program("docker").args(["image", "rm", id]));
}

#[cfg(test)]
mod tests {
    use super::{RUSTFLAGS, last_stage};

    const DOCKERFILE: &str = include_str!("../../Dockerfile");

    #[test]
    fn last_stage_needs_no_other() {
        let stage = last_stage(DOCKERFILE);
        assert!(stage.starts_with("FROM scratch\n"), "{stage}");
        assert!(stage.contains("\nCOPY /image/ /\n"), "{stage}");
        assert!(stage.contains("\nCOPY --chown=65532:65532 /directories/ /run/\n"), "{stage}");
        assert!(!stage.contains("--from="), "{stage}");
        assert_eq!(stage.matches("FROM ").count(), 1, "{stage}");
    }

    #[test]
    fn dockerfile_builds_the_binary_the_same_way() {
        assert!(DOCKERFILE.contains(&format!("RUSTFLAGS=\"{RUSTFLAGS}\"")));
    }
}
