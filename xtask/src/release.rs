//! The binary of the release before: what an upgrade takes over from, and what somebody who goes back takes over with.
//!
//! It is built from its tag, so that no binary is in the tree, and kept in `target/skew` under its commit. A clone without
//! tags, or without the history behind them, has none; then the step says so, and so do the tests.

use std::fs;
use std::path::PathBuf;

use crate::process::{self, cargo, program, root};

/// A release that has this file can hand tunnels over.
const HANDOFF: &str = "src/handoff.rs";

/// What there is.
pub(crate) enum Before {
    /// The binary, and the tag that it was built from.
    Built { tag: String, binary: PathBuf },
    /// None, for the reason given.
    Missing(String),
}

/// Finds the release, and builds it unless it is there. Takes a minute or two; what it depends on is fetched where it
/// `may_fetch`.
pub(crate) fn build(may_fetch: bool) -> Result<Before, String> {
    let git = |arguments: &[&str]| process::read(program("git").args(arguments));
    let sorted = ["tag", "--list", "v*", "--merged", "HEAD", "--sort=-version:refname"];
    let tags = match git(&sorted) {
        Ok(tags) => tags,
        Err(why) => return Ok(Before::Missing(format!("git tells no tags: {why}"))),
    };
    let here = git(&["tag", "--points-at", "HEAD"])?;
    let can_hand_over = |tag: &str| git(&["cat-file", "-e", &format!("{tag}:{HANDOFF}")]).is_ok();
    let Some(tag) = newest(&tags, &here, can_hand_over) else {
        let is_shallow = git(&["rev-parse", "--is-shallow-repository"])? == "true";
        let far = if is_shallow { ", as far as this shallow clone knows" } else { "" };
        return Ok(Before::Missing(format!(
            "no release with handoff yet: no tag v* has {HANDOFF}{far}"
        )));
    };
    let commit = git(&["rev-parse", &format!("{tag}^{{commit}}")])?;
    let folder = format!("target/skew/{commit}");
    let binary = root().join(&folder).join("elbows");
    if !binary.exists() {
        println!("{tag} to build into {folder}");
        build_commit(&commit, &folder, may_fetch)?;
    }
    Ok(Before::Built { tag: tag.to_owned(), binary })
}

/// The first of the tags, newest first, that can hand over and is not of the commit at hand.
fn newest<'t>(tags: &'t str, here: &str, can_hand_over: impl Fn(&str) -> bool) -> Option<&'t str> {
    let is_here = |tag: &str| here.lines().any(|other| other == tag);
    tags.lines().find(|tag| !is_here(tag) && can_hand_over(tag))
}

fn build_commit(commit: &str, folder: &str, may_fetch: bool) -> Result<(), String> {
    let at = |fault| format!("{folder}: {fault}");
    let place = root().join(folder);
    if place.exists() {
        // One that was broken off.
        fs::remove_dir_all(&place).map_err(at)?;
    }
    let [source, build, archive] = ["source", "build", "source.tar"].map(|name| place.join(name));
    fs::create_dir_all(&source).map_err(at)?;
    process::run(program("git").args(["archive", "--output"]).arg(&archive).arg(commit))?;
    process::run(
        program("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&source),
    )?;
    let mut cargo = cargo(&["build", "--quiet", "--locked", "--package", "elbows"]);
    cargo.arg("--manifest-path").arg(source.join("Cargo.toml")).arg("--target-dir").arg(&build);
    if !may_fetch {
        cargo.arg("--offline");
    }
    process::run(&mut cargo)?;
    fs::copy(build.join("debug/elbows"), place.join("elbows.new")).map_err(at)?;
    // Hundreds of megabytes that nobody needs again.
    for folder in [source, build] {
        fs::remove_dir_all(folder).map_err(at)?;
    }
    fs::remove_file(archive).map_err(at)?;
    // What has this name is whole.
    fs::rename(place.join("elbows.new"), place.join("elbows")).map_err(at)
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn release_before_is_the_newest_that_hands_over_and_is_not_this_commit() {
        let tags = "v0.10.0\nv0.9.1\nv0.9.0\nv0.1.0";
        let can_hand_over = |tag: &str| tag != "v0.1.0";
        assert_eq!(newest(tags, "", can_hand_over), Some("v0.10.0"));
        assert_eq!(newest(tags, "nightly\nv0.10.0", can_hand_over), Some("v0.9.1"));
        assert_eq!(newest("v0.1.0", "", can_hand_over), None);
        assert_eq!(newest("", "", can_hand_over), None);
    }
}
