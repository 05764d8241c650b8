//! The application: WebSockets and other tunnels as their handshakes say, pages and a download. On the same port, but not
//! through the proxy, it is told which tunnels are to finish, and tells what it has seen of each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::content::{Content, Side};
use crate::end::{self, Finish, Outcome};
use crate::heads;
use crate::plan::Plan;

/// The field of a handshake that has the application's plan.
pub(crate) const PLAN: &str = "X-Load-Plan";

/// Bytes of a page.
pub(crate) const PAGE: usize = 1024;

/// How long a report waits for tunnels that are not over.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the application has seen of one tunnel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) tunnel: u64,
    /// The client's address, as the proxy told it.
    pub(crate) client: String,
    /// Nothing while it is open.
    pub(crate) outcome: Option<Outcome>,
}

struct Application {
    records: RefCell<HashMap<u64, Record>>,
    finish: watch::Sender<Finish>,
}

/// Serves `address` until `stop`.
pub(crate) async fn serve(address: SocketAddr, stop: watch::Receiver<bool>) -> io::Result<()> {
    let listener = listen(address)?;
    println!("\nlistening {}", listener.local_addr()?);
    let finish = watch::Sender::new(Finish::new());
    let application = Rc::new(Application { records: RefCell::default(), finish });
    let mut stop = stop;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                socket.set_nodelay(true)?;
                let application = application.clone();
                spawn_local(async move {
                    // Who leaves is missed where it counts: in the reports.
                    let _ = application.connection(socket).await;
                });
            }
            _ = stop.wait_for(|is_over| *is_over) => return Ok(()),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

impl Application {
    /// One connection: requests, and perhaps a tunnel.
    async fn connection(&self, mut socket: TcpStream) -> io::Result<()> {
        let mut unread = Vec::new();
        while let Some((head, rest)) = heads::read_head(&mut socket, unread).await? {
            unread = rest;
            let (path, tunnel) = heads::path(&head).unwrap_or_default();
            if let (Some(protocol), Some(tunnel)) = (heads::field(&head, "upgrade"), tunnel) {
                let plan = heads::field(&head, PLAN).map(serde_json::from_str);
                let Some(Ok(plan)) = plan else { return Err(io::Error::other("no plan")) };
                socket.write_all(heads::switching(protocol).as_bytes()).await?;
                let client = heads::field(&head, "x-forwarded-for").unwrap_or_default().to_owned();
                self.tunnel(socket, &unread, (tunnel, client), plan).await;
                return Ok(());
            }
            let query = head.split(' ').nth(1).and_then(|target| target.split_once('?'));
            let query = query.map_or("", |(_, query)| query);
            let number = |name| heads::number(query, name).unwrap_or_default();
            let range = number("first")..number("first") + number("count");
            match path {
                "/page" => send_content(&mut socket, 0, PAGE as u64).await?,
                "/download" => {
                    send_content(&mut socket, tunnel.unwrap_or_default(), number("bytes")).await?;
                }
                "/finish" => {
                    self.finish.send_modify(|ranges| ranges.push(range));
                    socket.write_all(heads::response("200 OK", 0).as_bytes()).await?;
                }
                "/report" => {
                    let report = serde_json::to_vec(&self.report(range).await)?;
                    let head = heads::response("200 OK", report.len() as u64);
                    socket.write_all(head.as_bytes()).await?;
                    socket.write_all(&report).await?;
                }
                _ => socket.write_all(heads::response("404 Not Found", 0).as_bytes()).await?,
            }
        }
        Ok(())
    }

    async fn tunnel(
        &self,
        socket: TcpStream,
        early: &[u8],
        (tunnel, client): (u64, String),
        plan: Plan,
    ) {
        let record = Record { tunnel, client, outcome: None };
        self.records.borrow_mut().insert(tunnel, record);
        let finish = self.finish.subscribe();
        let outcome = end::run(socket, early, (Side::Application, tunnel), plan, finish).await;
        if let Some(record) = self.records.borrow_mut().get_mut(&tunnel) {
            record.outcome = Some(outcome);
        }
    }

    fn records_of(&self, range: &Range<u64>) -> Vec<Record> {
        let records = self.records.borrow();
        records.values().filter(|record| range.contains(&record.tunnel)).cloned().collect()
    }

    /// What is known of the tunnels in the range, when all of them are over.
    async fn report(&self, range: Range<u64>) -> Vec<Record> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let records = self.records_of(&range);
            if Instant::now() > deadline || records.iter().all(|record| record.outcome.is_some()) {
                return records;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn send_content(socket: &mut TcpStream, tunnel: u64, length: u64) -> io::Result<()> {
    socket.write_all(heads::response("200 OK", length).as_bytes()).await?;
    let content = Content::new(tunnel, Side::Application);
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    while offset < length {
        let size = usize::try_from(length - offset).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..size).unwrap_or_default();
        content.fill(offset, part);
        socket.write_all(part).await?;
        offset += size as u64;
    }
    Ok(())
}

/// Asks the application for something, past the proxy, and returns the body.
pub(crate) async fn ask(application: SocketAddr, target: &str) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(application).await?;
    socket.write_all(heads::get(target).as_bytes()).await?;
    let Some((head, mut body)) = heads::read_head(&mut socket, Vec::new()).await? else {
        return Err(io::Error::other("the application does not answer"));
    };
    let length = heads::field(&head, "content-length").and_then(|length| length.parse().ok());
    let mut rest = vec![0; length.unwrap_or(0_usize).saturating_sub(body.len())];
    socket.read_exact(&mut rest).await?;
    body.append(&mut rest);
    Ok(body)
}
