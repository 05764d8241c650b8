//! Work that takes no socket: following frames and parsing PROXY headers, so many times over.
//!
//! The process is started twice under valgrind with different numbers, which gives instructions, and
//! once by itself, which gives time.

use std::time::Instant;

use elbows::config::routing::{Conditions, HostPattern, PathPattern};
use elbows::http::head::{HeadLimits, Reader};
use elbows::proxy_protocol::{self, encode};
use elbows::{routes, workers};
use serde::{Deserialize, Serialize};

use crate::frames::{self, Sender};
use crate::heads::{self, Path, WEBSOCKET};

/// Bytes that the relay reads at once.
const READ: usize = 64 * 1024;

/// Fields that httparse has room for: those of the head and a few.
const FIELDS: usize = 16;

/// What is done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Micro {
    /// Frames of so many bytes of payload are followed, in reads as the relay makes them.
    Frames(usize),
    /// Headers of version 1 are parsed.
    ProxyV1,
    /// Headers of version 2 are parsed.
    ProxyV2,
    /// Headers of version 2 with the TLVs of an NLB, `CRC32c` included, are parsed.
    ProxyV2Tlvs,
    /// The route of a request is found among a thousand, by its host.
    Hosts,
    /// The same by its path, under one host.
    Paths,
    /// Request heads are read by elbows' rules.
    Head,
    /// The same heads are taken apart by hyper's parser.
    LenientHead,
}

impl Micro {
    /// What the report calls it.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Frames(size) if size >= 1024 => format!("frame of {} KiB", size / 1024),
            Self::Frames(size) => format!("frame of {size} B"),
            Self::ProxyV1 => "PROXY header, version 1".to_owned(),
            Self::ProxyV2 => "PROXY header, version 2".to_owned(),
            Self::ProxyV2Tlvs => "PROXY header, version 2 with CRC32c".to_owned(),
            Self::Hosts => "one of 1,000 routes, by host".to_owned(),
            Self::Paths => "one of 1,000 routes, by path".to_owned(),
            Self::Head => "request head, read strictly".to_owned(),
            Self::LenientHead => "request head, read by httparse".to_owned(),
        }
    }

    /// One of what is worked on.
    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Frames(size) => frames::frame(Sender::Client, frames::BINARY, &vec![b'e'; size]),
            Self::ProxyV1 => heads::proxy_header(0),
            Self::ProxyV2 => heads::proxy_header(1),
            Self::ProxyV2Tlvs => {
                let from = ([203, 0, 113, 7], 50_000).into();
                let endpoint: &[u8] = b"\x01vpce-08d2bf15fac5001c9";
                encode::v2(from, ([192, 0, 2, 1], 443).into(), &[(0xea, endpoint)], true)
            }
            Self::Hosts | Self::Paths => {
                b"GET /team-617/chat/room?x=1 HTTP/1.1\r\nHost: team-617.example.com:443\r\n\r\n"
                    .to_vec()
            }
            Self::Head | Self::LenientHead => heads::upgrade(Path::Echo, WEBSOCKET),
        }
    }

    /// Does it `count` times; nanoseconds.
    ///
    /// # Errors
    /// It did not do what it should.
    pub(crate) fn run(self, count: u64) -> Result<u64, String> {
        let bytes = self.bytes();
        let times = usize::try_from(count).unwrap_or(usize::MAX);
        let start = Instant::now();
        let done = match self {
            Self::Frames(_) => {
                let frame = || std::hint::black_box(bytes.as_slice()).chunks(READ);
                workers::count_messages(std::iter::repeat_with(frame).take(times).flatten())
            }
            Self::ProxyV1 | Self::ProxyV2 | Self::ProxyV2Tlvs => {
                let parse = || proxy_protocol::parse(std::hint::black_box(bytes.as_slice()));
                let whole = |used| used == bytes.len();
                let parsed = std::iter::repeat_with(parse).take(times);
                let good =
                    parsed.filter(|found| matches!(found, Ok(Some((_, used))) if whole(*used)));
                good.count() as u64
            }
            Self::Hosts | Self::Paths => {
                let read = Reader::default().request(&bytes, &HeadLimits::DEFAULT);
                let Ok(Some((head, _))) = read else { return Err(String::from("no head")) };
                let routes: Vec<_> = (0..1_000).map(|number| self.route(number)).collect();
                routes::count_found(&routes, &head, times) as u64
            }
            Self::Head => {
                let read = || {
                    let read = Reader::default()
                        .request(std::hint::black_box(&bytes), &HeadLimits::DEFAULT);
                    matches!(std::hint::black_box(read), Ok(Some((_, used))) if used == bytes.len())
                };
                std::iter::repeat_with(read).take(times).filter(|good| *good).count() as u64
            }
            Self::LenientHead => {
                let read = || {
                    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
                    let mut request = httparse::Request::new(&mut fields);
                    let read = request.parse(std::hint::black_box(&bytes));
                    std::hint::black_box(&request);
                    matches!(read, Ok(httparse::Status::Complete(used)) if used == bytes.len())
                };
                std::iter::repeat_with(read).take(times).filter(|good| *good).count() as u64
            }
        };
        if done != count {
            return Err(format!("{done} of {count} were found"));
        }
        Ok(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// One of a thousand routes.
    fn route(self, number: usize) -> Conditions {
        let (host, path) = match self {
            Self::Hosts => (format!("team-{number}.example.com"), String::from("/")),
            _ => (String::from("team-617.example.com"), format!("/team-{number}/chat")),
        };
        Conditions {
            hosts: vec![HostPattern::Exact(host)],
            path: PathPattern::Prefix(path),
            ..Conditions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Micro;

    #[test]
    fn each_finds_all_that_it_is_given() {
        for micro in [Micro::Frames(64), Micro::Frames(256 * 1024)] {
            assert!(micro.run(3).is_ok(), "{micro:?}");
        }
        let headers = [Micro::ProxyV1, Micro::ProxyV2, Micro::ProxyV2Tlvs];
        for micro in
            headers.into_iter().chain([Micro::Head, Micro::LenientHead, Micro::Hosts, Micro::Paths])
        {
            assert!(micro.run(3).is_ok(), "{micro:?}");
        }
    }
}
