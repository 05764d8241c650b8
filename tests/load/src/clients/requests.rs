//! Plain requests on connections that are kept, and a download that lasts.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Clients, PATIENCE, microseconds};
use crate::application::PAGE;
use crate::content::{Content, Side};
use crate::heads;
use crate::report::Failure;

/// From one request of a connection to the next.
const EVERY: Duration = Duration::from_millis(500);

/// Bytes that a download takes at a time.
const PART: usize = 64 * 1024;

/// What became of a request.
enum Answer {
    /// A good one; the connection may be used again.
    Kept(TcpStream),
    /// A good one, and the connection ends.
    Closing,
    /// The connection ended in front of it.
    Nothing(String),
}

impl Clients {
    /// A request now and then, each on the connection of the last one.
    pub(super) async fn requests(&self) {
        let number = self.number();
        self.requests.borrow_mut().connections += 1;
        let mut kept: Option<TcpStream> = None;
        let mut due = Instant::now();
        while !self.is_over() {
            // A connection that has ended between two requests can be read.
            if kept.as_ref().is_some_and(|socket| !is_silent(socket)) {
                kept = None;
                self.requests.borrow_mut().renewed += 1;
            }
            let (is_fresh, began) = (kept.is_none(), Instant::now());
            let answer = timeout(PATIENCE, self.request(number, kept.take())).await;
            match answer.unwrap_or_else(|_| Err(io::Error::other("no answer in time"))) {
                Ok(Answer::Nothing(_)) if !is_fresh => {
                    self.requests.borrow_mut().unanswered += 1;
                    continue;
                }
                Ok(Answer::Kept(socket)) => kept = Some(socket),
                Ok(Answer::Closing) => self.requests.borrow_mut().renewed += 1,
                Ok(Answer::Nothing(why)) => self.fail("request", number, 0, &why),
                Err(fault) => self.fail("request", number, 0, &fault.to_string()),
            }
            self.request_delays.borrow_mut().push(microseconds(began.elapsed()));
            due += EVERY;
            sleep_until(due).await;
        }
    }

    async fn request(&self, number: u64, kept: Option<TcpStream>) -> io::Result<Answer> {
        let request = heads::get("/page");
        let mut socket = match kept {
            None => self.connect(number, &request).await?,
            Some(mut socket) => {
                if let Err(fault) = socket.write_all(request.as_bytes()).await {
                    return Ok(Answer::Nothing(fault.to_string()));
                }
                socket
            }
        };
        let (head, mut body) = match heads::read_head(&mut socket, Vec::new()).await {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(Answer::Nothing("end".to_owned())),
            Err(fault) if fault.kind() == io::ErrorKind::ConnectionReset => {
                return Ok(Answer::Nothing("reset".to_owned()));
            }
            Err(fault) => return Err(fault),
        };
        let mut rest = vec![0; PAGE.saturating_sub(body.len())];
        socket.read_exact(&mut rest).await?;
        body.append(&mut rest);
        let mut expected = [0; PAGE];
        Content::new(0, Side::Application).fill(0, &mut expected);
        if heads::status(&head) != Some(200) || body != expected {
            let line = head.lines().next().unwrap_or_default();
            return Err(io::Error::other(format!("another response: {line}")));
        }
        let closes = heads::field(&head, "connection").is_some_and(|field| field.contains("close"));
        Ok(if closes { Answer::Closing } else { Answer::Kept(socket) })
    }

    /// Downloads at their rate, one behind the other; the last one at full speed when it is time to end.
    pub(super) async fn downloads(&self) {
        while !self.is_over() {
            let number = self.number();
            let mut came = 0;
            match self.download(number, &mut came).await {
                Ok(()) => self.downloads.borrow_mut().count += 1,
                Err(fault) => self.fail("download", number, came, &fault.to_string()),
            }
            self.downloads.borrow_mut().bytes += came;
        }
    }

    async fn download(&self, number: u64, came: &mut u64) -> io::Result<()> {
        let (all, rate) = (self.options.download, self.options.download_rate.max(1));
        let target = format!("/download?tunnel={number}&bytes={all}");
        let mut socket = self.connect(number, &heads::get(&target)).await?;
        let Some((head, mut part)) = heads::read_head(&mut socket, Vec::new()).await? else {
            return Err(io::Error::other("end"));
        };
        if heads::status(&head) != Some(200) {
            return Err(io::Error::other(head.lines().next().unwrap_or_default()));
        }
        let content = Content::new(number, Side::Application);
        let (began, mut finish) = (Instant::now(), self.finish.subscribe());
        loop {
            let mut expected = vec![0; part.len()];
            content.fill(*came, &mut expected);
            if part != expected {
                return Err(io::Error::other("changed"));
            }
            *came += part.len() as u64;
            part.clear();
            if *came >= all {
                return Ok(());
            }
            let due = began + Duration::from_secs_f64(*came as f64 / rate as f64);
            tokio::select! {
                () = sleep_until(due) => {}
                _ = finish.wait_for(|ranges| !ranges.is_empty()) => {}
            }
            part.reserve(PART);
            let read = timeout(PATIENCE, socket.read_buf(&mut part)).await;
            if read.map_err(|_| io::Error::other("no byte in time"))?? == 0 {
                return Err(io::Error::other("end"));
            }
        }
    }

    fn fail(&self, kind: &str, tunnel: u64, offset: u64, what: &str) {
        self.failures.borrow_mut().push(Failure {
            tunnel,
            kind: kind.to_owned(),
            seen_by: "client".to_owned(),
            what: what.to_owned(),
            offset,
            length: 0,
            message: 0,
            text: String::new(),
        });
    }
}

/// Neither bytes nor an end are there to be read.
fn is_silent(socket: &TcpStream) -> bool {
    socket.try_read(&mut [0]).is_err_and(|fault| fault.kind() == io::ErrorKind::WouldBlock)
}
