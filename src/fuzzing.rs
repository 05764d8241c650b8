//! What has to hold whatever the bytes are: the bodies of the fuzz targets, in one place.
//!
//! Each is a function of some bytes that panics where its rule is broken. `fuzz/` calls it from libFuzzer
//! on bytes that it makes up, and the tests here call it on the stable toolchain with the kept corpus and
//! with damaged copies of it. They are compiled for these two alone (`cfg(any(test, fuzzing))`; cargo-fuzz
//! sets the latter): so they see what is private, and no other build has a door to it.
//!
//! A further target is a body, its line in [`TARGETS`] and its two lines in `fuzz/`
//! (`Cargo.toml` and `fuzz_targets`); a test compares.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation
)]

mod admin;
mod connection;
pub(crate) mod course;
pub(crate) mod decode;
pub(crate) mod exchange;
mod exchange_reference;
mod frames;
pub(crate) mod http_reference;
mod messages;
mod proxy_header;
mod record;
pub(crate) mod reference;
mod requests;
mod responses;
pub(crate) mod shell;

pub use crate::tunnel::schedule::tunnel;
pub use admin::admin;
pub use connection::connection;
pub use exchange::exchange;
pub use frames::frames;
pub use proxy_header::proxy_header;
pub use record::record;
pub use requests::requests;
pub use responses::responses;

/// A target: its name and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("admin", admin),
    ("connection", connection),
    ("exchange", exchange),
    ("frames", frames),
    ("proxy_header", proxy_header),
    ("record", record),
    ("requests", requests),
    ("responses", responses),
    ("tunnel", tunnel),
];

/// Takes what a body needs from the front of its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Script<'b>(&'b [u8]);

impl<'b> Script<'b> {
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte, or 0 behind the last one.
    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// The next bytes, fewer at the end.
    pub(crate) fn bytes(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn rest(self) -> &'b [u8] {
        self.0
    }
}

impl Iterator for Script<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    /// The kept inputs of a target, by name.
    fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = folder().join("corpus").join(target);
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|file| (file.clone(), fs::read(&file).unwrap())).collect()
    }

    /// A body, by its name in [`TARGETS`].
    fn body(target: &str) -> fn(&[u8]) {
        TARGETS.iter().find(|(name, _)| *name == target).unwrap().1
    }

    #[test]
    fn each_target_has_its_binary_and_its_corpus() {
        let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names.len(), TARGETS.len());
        let listed = |folder: PathBuf| -> BTreeSet<String> {
            let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
            fs::read_dir(folder).unwrap().map(|entry| name(entry.unwrap().path())).collect()
        };
        assert_eq!(listed(folder().join("fuzz_targets")), names);
        assert_eq!(listed(folder().join("corpus")), names);
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            let target = folder().join(format!("fuzz_targets/{name}.rs"));
            let target = fs::read_to_string(target).unwrap();
            assert!(target.contains(&format!("elbows::fuzzing::{name}(")), "{name}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }

    #[test]
    fn the_kept_corpus_breaks_no_rule() {
        for (target, body) in TARGETS {
            let corpus = corpus(target);
            assert!(!corpus.is_empty(), "{target}");
            for (file, bytes) in corpus {
                let held = std::panic::catch_unwind(|| body(&bytes));
                assert!(held.is_ok(), "{}", file.display());
            }
        }
    }

    /// A kept input with some bytes changed, put in, or cut off; or any bytes.
    fn input(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
        let kept: Vec<_> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
        let changes = prop::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 0..6);
        let damaged = (select(kept.clone()), select(kept), changes).prop_map(
            |(mut bytes, other, changes)| {
                for (place, value, kind) in changes {
                    let at = place.index(bytes.len() + 1);
                    match kind {
                        0 => bytes.truncate(at.max(4)),
                        1 => bytes.insert(at, value),
                        2 => bytes.extend(other.iter().take(usize::from(value))),
                        _ if at < bytes.len() => bytes[at] = value,
                        _ => {}
                    }
                }
                bytes
            },
        );
        prop_oneof![8 => damaged, 1 => prop::collection::vec(any::<u8>(), 0..200)]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(3000)
        })]

        #[test]
        fn damaged_requests_of_the_admin_port_break_no_rule(bytes in input("admin")) {
            body("admin")(&bytes);
        }

        #[test]
        fn damaged_proxy_headers_break_no_rule(bytes in input("proxy_header")) {
            body("proxy_header")(&bytes);
        }

        #[test]
        fn damaged_requests_break_no_rule(bytes in input("requests")) {
            body("requests")(&bytes);
        }

        #[test]
        fn damaged_responses_break_no_rule(bytes in input("responses")) {
            body("responses")(&bytes);
        }

        #[test]
        fn damaged_connections_break_no_rule(bytes in input("connection")) {
            body("connection")(&bytes);
        }

        #[test]
        fn damaged_exchanges_break_no_rule(bytes in input("exchange")) {
            body("exchange")(&bytes);
        }

        #[test]
        fn damaged_frames_break_no_rule(bytes in input("frames")) {
            body("frames")(&bytes);
        }

        #[test]
        fn damaged_records_break_no_rule(bytes in input("record")) {
            body("record")(&bytes);
        }

        #[test]
        fn damaged_schedules_of_a_tunnel_break_no_rule(bytes in input("tunnel")) {
            body("tunnel")(&bytes);
        }
    }
}
