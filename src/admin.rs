//! What the admin port says and takes, without the port: questions are read, answers are made. Pure.
//!
//! `control/admin.rs` has the port; workers answer by `workers/worker/looks.rs`. `docs/admin.md` tells all of it to those
//! who ask, and `docs/schemas` has the form of each answer.

pub(crate) mod close;
pub(crate) mod fault;
pub(crate) mod guard;
pub(crate) mod json;
pub(crate) mod listing;
pub(crate) mod query;
pub(crate) mod sorting;
pub(crate) mod view;
