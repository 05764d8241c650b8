//! The load that a handoff has to bear: an application and clients, with tunnels of every kind between them through a
//! proxy. For tests alone, as a program (`elbows-load`) or started by one.
//!
//! Both ends of a tunnel know each byte that has to come (`content`), so that whatever is lost, doubled, changed or comes
//! in another order is told with its place. Each end hashes what it sends and what it gets, and the hashes are compared
//! past the proxy. A tunnel's kind says what its two ends do (`plan`), which one code carries out for both (`end`).
//!
//! ```text
//! clients ──▶ proxy ──▶ application        tunnels, requests, a download
//!    └────────────────────▶ application    which are to finish; what it has seen
//! ```

#![allow(clippy::cast_precision_loss)] // Counts become numbers for people.

mod application;
mod clients;
mod content;
mod end;
mod frames;
mod heads;
mod plan;
mod report;

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::thread;

use clap::Parser;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;

pub use report::{
    DownloadReport, Failure, Gap, KindReport, Report, RequestReport, Spread, TunnelReport,
};

/// Tunnels of every kind through a proxy, each byte of which both ends check
#[derive(Parser)]
#[command(name = "elbows-load")]
enum Command {
    /// The end behind the proxy. It says `listening ADDRESS`, and goes on until SIGTERM, or a line or the end of its input
    Application {
        /// Where it listens; with port 0 at any that is free
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// The end in front of it. It says `open N in SECONDS` when all its tunnels are open, and goes on until SIGTERM, or a
    /// line or the end of its input; then it ends each in order and writes one line of JSON
    Clients(Box<clients::Options>),
}

/// Does what the command line says; its first word is the program's name. The error is a sentence.
///
/// # Errors
///
/// The command line cannot be read, or the application cannot be reached past the proxy.
pub fn run(words: &[String]) -> Result<(), String> {
    let command = Command::try_parse_from(words).map_err(|fault| fault.to_string())?;
    let _ = test_support::process::raise_descriptor_limit();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| format!("no runtime: {fault}"))?;
    let done = LocalSet::new().block_on(&runtime, async {
        let stop = stop()?;
        match command {
            Command::Application { listen } => application::serve(listen, stop).await,
            Command::Clients(options) => {
                let report = clients::run(*options, stop).await?;
                println!("\n{}", serde_json::to_string(&report)?);
                Ok(())
            }
        }
    });
    done.map_err(|fault: io::Error| fault.to_string())
}

/// Becomes true with SIGTERM, or with a line or the end of standard input.
fn stop() -> io::Result<watch::Receiver<bool>> {
    let (sender, stop) = watch::channel(false);
    let of_signal = sender.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::task::spawn_local(async move {
        terminate.recv().await;
        let _ = of_signal.send(true);
    });
    // A thread, for a read of standard input cannot be given up; it goes with the process.
    thread::spawn(move || {
        let mut byte = [0];
        while io::stdin().read(&mut byte).is_ok_and(|length| length > 0) && byte != *b"\n" {}
        let _ = sender.send(true);
    });
    Ok(stop)
}
