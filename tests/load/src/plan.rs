//! What each end of a tunnel does, by the tunnel's kind. The client knows both plans, and sends the application's in
//! the field `X-Load-Plan` of its handshake.

use serde::{Deserialize, Serialize};

/// The kinds of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A message of 64 bytes and its echo, now and then.
    Idle,
    /// The same, often.
    Echo,
    /// The application sends 64 bytes by the clock.
    Paced,
    /// Frames of 1 MiB, and their echo.
    Large,
    /// Messages in fragments, with Pings between them and pauses in the middle of frames; the same comes back.
    Fragmented,
    /// One side, or both, send as much as they can, and the other stands still and takes some now and then.
    Stalled,
    /// Not a WebSocket: one direction ends early, the other goes on.
    HalfClosed,
    /// Both sides send Pings of their own, beside messages.
    Pings,
    /// A close handshake whose second Close comes late, and messages meanwhile; opened anew when it is over.
    Closing,
    /// A handshake, a message and its echo, a Close.
    Handshake,
}

impl Kind {
    /// Path and kind have one name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Echo => "echo",
            Self::Paced => "paced",
            Self::Large => "large",
            Self::Fragmented => "fragmented",
            Self::Stalled => "stalled",
            Self::HalfClosed => "half_closed",
            Self::Pings => "pings",
            Self::Closing => "closing",
            Self::Handshake => "handshake",
        }
    }

    /// The protocol that the handshake asks for.
    pub(crate) const fn protocol(self) -> &'static str {
        match self {
            Self::HalfClosed => "load",
            _ => "websocket",
        }
    }
}

/// Messages by the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pace {
    /// Bytes of payload.
    pub(crate) size: usize,
    /// Milliseconds from one to the next. With 0 there is always one under way.
    pub(crate) every: u64,
    /// In how many frames.
    pub(crate) fragments: usize,
    /// Milliseconds in the middle of each frame and behind it.
    pub(crate) pause: u64,
}

/// Reading that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stall {
    /// For so many milliseconds.
    pub(crate) time: u64,
    /// Then so many bytes are read.
    pub(crate) bytes: usize,
}

/// What one end does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // Each is one thing that it does or not.
pub(crate) struct Plan {
    /// Bytes without frames, in messages of [`BARE_SIZE`].
    pub(crate) is_bare: bool,
    pub(crate) sends: Option<Pace>,
    /// What comes goes back.
    pub(crate) echoes: bool,
    /// What is sent comes back.
    pub(crate) awaits_echo: bool,
    pub(crate) stall: Option<Stall>,
    /// Milliseconds between Pings.
    pub(crate) ping_every: Option<u64>,
    /// How long Pongs take says something: no Ping and no Pong waits for a frame that stands still.
    pub(crate) times_pings: bool,
    /// It ends its direction behind so many messages of its own.
    pub(crate) ends_after: Option<u64>,
    /// The other end does.
    pub(crate) peer_ends_after: Option<u64>,
    /// It sends the first Close after so many milliseconds.
    pub(crate) closes_at: Option<u64>,
    /// It answers a Close so many milliseconds later.
    pub(crate) answers_late: u64,
}

/// Payload of a message of a tunnel that has no frames.
pub(crate) const BARE_SIZE: usize = 64;

/// How many messages the direction of a half-closed tunnel has that ends early.
const BEFORE_THE_END: u64 = 3;

/// Sizes and times of the kinds.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Paces {
    /// Milliseconds between the messages of an idle tunnel
    #[arg(long, default_value_t = 5_000)]
    idle_every: u64,
    /// Milliseconds between messages of 64 bytes, of echo and paced tunnels alike
    #[arg(long, default_value_t = 500)]
    every: u64,
    /// Bytes of a large frame
    #[arg(long, default_value_t = 1024 * 1024)]
    large_size: usize,
    /// Milliseconds between large frames
    #[arg(long, default_value_t = 2_000)]
    large_every: u64,
    /// Milliseconds in the middle of a fragment, and behind it
    #[arg(long, default_value_t = 100)]
    fragment_pause: u64,
    /// Milliseconds for which a stalled reader stands still
    #[arg(long, default_value_t = 5_000)]
    stall_time: u64,
    /// Bytes that it takes then
    #[arg(long, default_value_t = 128 * 1024)]
    stall_bytes: usize,
    /// Milliseconds between Pings
    #[arg(long, default_value_t = 500)]
    ping_every: u64,
    /// Milliseconds from one Close to the other
    #[arg(long, default_value_t = 2_000)]
    close_late: u64,
}

impl Paces {
    /// The client's plan and the application's. Where a kind has two sides, they take turns by the tunnel's number.
    pub(crate) fn plans(&self, kind: Kind, tunnel: u64) -> (Plan, Plan) {
        let is_even = tunnel.is_multiple_of(2);
        let small = |every| Pace { size: 64, every, fragments: 1, pause: 0 };
        let echo = |sends| {
            let client = Plan { sends: Some(sends), awaits_echo: true, ..Plan::default() };
            (client, Plan { echoes: true, ..Plan::default() })
        };
        let silent = Plan::default();
        let by_turns = |one, other| if is_even { (one, other) } else { (other, one) };
        match kind {
            Kind::Idle => echo(small(self.idle_every)),
            Kind::Echo => echo(small(self.every)),
            Kind::Paced => (silent, Plan { sends: Some(small(self.every)), ..silent }),
            Kind::Large => {
                let size = self.large_size;
                // Half of the time it stands still in the middle of a frame.
                let pause = self.large_every / 2;
                echo(Pace { size, every: self.large_every, pause, ..small(0) })
            }
            Kind::Fragmented => {
                let pause = self.fragment_pause;
                let pace = Pace { size: 1_200, every: 11 * pause, fragments: 5, pause };
                // Each frame takes two pauses, so that a Ping of each side falls between most of them.
                let ping_every = Some(2 * pause);
                let (client, application) = echo(pace);
                (Plan { ping_every, ..client }, Plan { ping_every, ..application })
            }
            Kind::Stalled => {
                let still = Stall { time: self.stall_time, bytes: self.stall_bytes };
                let writes = Plan { sends: Some(Pace { size: 16 * 1024, ..small(0) }), ..silent };
                let reads = Plan { stall: Some(still), ..silent };
                let both = Plan { stall: Some(still), ..writes };
                match tunnel % 3 {
                    0 => (reads, writes),
                    1 => (writes, reads),
                    _ => (both, both),
                }
            }
            Kind::HalfClosed => {
                let sends = Some(small(self.every));
                let bare = Plan { is_bare: true, sends, ..silent };
                by_turns(
                    Plan { ends_after: Some(BEFORE_THE_END), ..bare },
                    Plan { peer_ends_after: Some(BEFORE_THE_END), ..bare },
                )
            }
            Kind::Pings => {
                let ping_every = Some(self.ping_every);
                let (client, application) = echo(small(2 * self.every));
                let pinging = |plan| Plan { ping_every, times_pings: true, ..plan };
                (pinging(client), pinging(application))
            }
            Kind::Closing => {
                let answers_late = self.close_late;
                by_turns(
                    Plan { closes_at: Some(500), ..silent },
                    Plan { sends: Some(small(100)), answers_late, ..silent },
                )
            }
            Kind::Handshake => {
                let (client, application) = echo(small(0));
                (Plan { ends_after: Some(1), ..client }, application)
            }
        }
    }
}
