//! The stage of one measurement: the application and one proxy, started for it and ended after it, and
//! the load that is sent through.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Fallible;
use crate::heads;
use crate::load::{Job, OPEN, Outcome, Until, Work, read_response};
use crate::measure::counts::{Counter, Counts};
use crate::micro::Micro;
use crate::process::{GLANCE, Process, Program, START, free_address};
use crate::proxies::{Endpoints, Proxy, Setup};

/// How long a load may run beyond its own window. It gives up by itself before.
const PATIENCE: Duration = Duration::from_secs(300);

/// The client that asks whether a proxy serves: the last part of its address.
const ASKING: u8 = 9;

/// Runs a program when its core has nothing else to do. A high `nice` is not enough: whoever has it still runs its
/// slice to the end, which is longer than what is measured.
const LAST: [&str; 3] = ["chrt", "--idle", "0"];

/// What every measurement is made with.
pub(crate) struct Rig {
    own: PathBuf,
    scratch: tempfile::TempDir,
    pub(crate) cores: Cores,
    started: std::cell::Cell<usize>,
}

/// Who runs where.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    pub(crate) proxy: Vec<usize>,
    pub(crate) load: Vec<usize>,
}

impl Rig {
    /// Fails if this machine cannot be measured on.
    pub(crate) fn new() -> Fallible<Self> {
        let own = std::env::current_exe().map_err(|fault| format!("our own binary: {fault}"))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if cores < 2 {
            return Err(
                "the bench needs two cores, one for the proxy and one for the load, and this process may use one"
                    .to_owned(),
            );
        }
        raise_descriptor_limit();
        let scratch = tempfile::Builder::new().prefix("elbows-bench-").tempdir();
        let scratch = scratch.map_err(|fault| format!("no temporary directory: {fault}"))?;
        let cores = Cores { proxy: vec![0], load: vec![1] };
        Ok(Self { own, scratch, cores, started: std::cell::Cell::new(0) })
    }

    pub(crate) fn own(&self) -> &std::path::Path {
        &self.own
    }

    /// Starts a program.
    fn start(&self, program: Program) -> Fallible<Process> {
        self.started.set(self.started.get() + 1);
        program.start(self.scratch.path(), self.started.get())
    }

    /// An application and a proxy, both listening.
    pub(crate) fn stage(&self, proxy: Proxy, setup: &Setup) -> Fallible<Stage<'_>> {
        self.stage_on(&self.cores.proxy, proxy, setup, None)
    }

    /// The same, with the proxy on cores of its own, or run by a program that counts.
    pub(crate) fn stage_on(
        &self,
        cores: &[usize],
        proxy: Proxy,
        setup: &Setup,
        counter: Option<Counter>,
    ) -> Fallible<Stage<'_>> {
        let (application, upstream) = self.application()?;
        let address = free_address()?;
        let mut program =
            proxy.program(&self.own, cores, self.scratch.path(), [address, upstream], setup)?;
        if let Some(counter) = counter {
            program = program.under(&counter.words(&self.own, cores)?);
        }
        let mut process = self.start(program)?;
        process.wait_until_it_listens(address)?;
        let others = Vec::new();
        let mut stage =
            Stage { rig: self, application, others, proxy: Some(process), address, upstream };
        stage.wait_until_it_serves(proxy)?;
        Ok(stage)
    }

    /// A proxy in front of endpoints, of which the first so many are there.
    pub(crate) fn stage_before(
        &self,
        proxy: Proxy,
        setup: &Setup,
        endpoints: Endpoints,
        there: usize,
    ) -> Fallible<Stage<'_>> {
        let mut others = Vec::new();
        for address in endpoints.addresses().take(there) {
            others.push(self.application_at(address)?);
        }
        let (Some(application), Some(upstream)) = (others.pop(), endpoints.addresses().next())
        else {
            return Err("there is no endpoint".to_owned());
        };
        let address = free_address()?;
        let setup = Setup { endpoints: Some(endpoints), ..*setup };
        let cores = &self.cores.proxy;
        let program =
            proxy.program(&self.own, cores, self.scratch.path(), [address, upstream], &setup)?;
        let mut process = self.start(program)?;
        process.wait_until_it_listens(address)?;
        let mut stage =
            Stage { rig: self, application, others, proxy: Some(process), address, upstream };
        stage.wait_until_it_serves(proxy)?;
        Ok(stage)
    }

    /// An application alone.
    pub(crate) fn without_proxy(&self) -> Fallible<Stage<'_>> {
        let (application, address) = self.application()?;
        let others = Vec::new();
        Ok(Stage { rig: self, application, others, proxy: None, address, upstream: address })
    }

    /// Runs a part of elbows without sockets, on the proxy's core: what it said, and what was counted.
    pub(crate) fn micro(
        &self,
        work: Micro,
        count: u64,
        counter: Option<Counter>,
    ) -> Fallible<(String, Counts)> {
        let job = serde_json::to_string(&work).map_err(|fault| fault.to_string())?;
        let cores = &self.cores.proxy;
        let mut program = Program::new("the bench's micro", cores, &self.own)
            .argument("micro")
            .argument(job)
            .argument(count.to_string());
        if let Some(counter) = counter {
            program = program.under(&counter.words(&self.own, cores)?);
        }
        let mut process = self.start(program)?;
        let status = process.wait()?;
        if !status.success() {
            return Err(format!("it failed ({status}){}", process.last_words()));
        }
        let counts = counter.map_or_else(|| Ok(Counts::new()), |counter| counter.read(&process))?;
        Ok((process.output(), counts))
    }

    /// Keeps cores from falling asleep, for as long as what is returned lives. A core of a virtual machine
    /// wakes up in a time like those that are measured.
    pub(crate) fn awake(&self, cores: &[usize]) -> Fallible<Vec<Process>> {
        let start = |&core| {
            let program = Program::new("what keeps a core awake", &[core], &self.own);
            self.start(program.argument("awake").under(&LAST))
        };
        cores.iter().map(start).collect()
    }

    fn application(&self) -> Fallible<(Process, SocketAddr)> {
        let address = free_address()?;
        Ok((self.application_at(address)?, address))
    }

    fn application_at(&self, address: SocketAddr) -> Fallible<Process> {
        let program = Program::new("the bench's application", &self.cores.load, &self.own);
        let mut application =
            self.start(program.argument("application").argument(address.to_string()))?;
        application.wait_until_it_listens(address)?;
        Ok(application)
    }
}

/// What runs during one measurement. All of it ends with this value.
pub(crate) struct Stage<'a> {
    rig: &'a Rig,
    application: Process,
    /// The application at further addresses.
    others: Vec<Process>,
    pub(crate) proxy: Option<Process>,
    address: SocketAddr,
    /// The application's.
    upstream: SocketAddr,
}

impl Stage<'_> {
    /// Waits until a request comes through, and the client's address with it: some listen before they know where to.
    fn wait_until_it_serves(&mut self, proxy: Proxy) -> Fallible<()> {
        let start = Instant::now();
        loop {
            match self.ask() {
                Ok(client)
                    if client == heads::address_of(ASKING).to_string() || proxy.is_limit() =>
                {
                    return Ok(());
                }
                Ok(client) => {
                    return Err(format!("it says that the client is `{client}`, which it is not"));
                }
                Err(fault) if start.elapsed() > START => {
                    return Err(format!("it does not serve: {fault}"));
                }
                Err(_) => self.expect_alive()?,
            }
            sleep(GLANCE);
        }
    }

    /// The application comes to another address.
    pub(crate) fn add_endpoint(&mut self, address: SocketAddr) -> Fallible<()> {
        self.others.push(self.rig.application_at(address)?);
        Ok(())
    }

    /// Asks the application for the client's address, as a client that is not the one of the load.
    pub(crate) fn ask(&self) -> io::Result<String> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(START))?;
        let request = heads::get(heads::Path::Client);
        socket.write_all(&[heads::proxy_header_of(ASKING, 1), request].concat())?;
        let said = read_response(&mut socket)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Starts the process that is to take the proxy's place.
    pub(crate) fn replace(&self, proxy: Proxy, setup: &Setup) -> Fallible<Process> {
        let rig = self.rig;
        let addresses = [self.address, self.upstream];
        let program =
            proxy.program(&rig.own, &rig.cores.proxy, rig.scratch.path(), addresses, setup)?;
        rig.start(program)
    }

    /// Sends a load through and returns what it saw.
    pub(crate) fn load(
        &mut self,
        connections: usize,
        work: Work,
        until: Until,
    ) -> Fallible<Outcome> {
        let load = self.start_load(connections, work, until)?;
        self.finish(load)
    }

    /// Opens connections that are held until [`Stage::finish`].
    pub(crate) fn hold(&mut self, connections: usize) -> Fallible<Process> {
        self.keep_up(connections, Work::Hold)
    }

    /// Does a work that goes on until [`Stage::finish`].
    pub(crate) fn keep_up(&mut self, connections: usize, work: Work) -> Fallible<Process> {
        let mut load = self.start_load(connections, work, Until::Count(u64::MAX))?;
        let start = Instant::now();
        while !load.output().starts_with(OPEN) {
            self.look_after(&mut load, start)?;
            // Until it is open, or `look_after` has waited too long.
            sleep(GLANCE);
        }
        Ok(load)
    }

    fn start_load(&mut self, connections: usize, work: Work, until: Until) -> Fallible<Process> {
        expect_descriptors(connections)?;
        let is_last = matches!(work, Work::Flood | Work::Frames(_));
        let job = Job {
            address: self.address,
            proxy_header: self.proxy.is_some(),
            proxy: self.proxy.as_ref().map(Process::pid),
            connections,
            work,
            until,
        };
        let job = serde_json::to_string(&job).map_err(|fault| fault.to_string())?;
        let program = Program::new("the bench's load", &self.rig.cores.load, &self.rig.own)
            .argument("load")
            .argument(job);
        self.rig.start(if is_last { program.under(&LAST) } else { program })
    }

    /// Tells a load to end, if it waits for that, and returns what it saw.
    pub(crate) fn finish(&mut self, mut load: Process) -> Fallible<Outcome> {
        drop(load.input());
        let start = Instant::now();
        while load.ended().is_none() {
            self.look_after(&mut load, start)?;
            // Until it has ended, or `look_after` has waited too long.
            sleep(GLANCE);
        }
        if !load.ended().is_some_and(|status| status.success()) {
            // Who died first is the better news.
            sleep(GLANCE * 5);
            self.expect_alive()?;
            return Err(format!("the load failed{}", load.last_words()));
        }
        let output = load.output();
        let last = output.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|fault| format!("the load's answer `{last}`: {fault}"))
    }

    fn look_after(&mut self, load: &mut Process, start: Instant) -> Fallible<()> {
        self.expect_alive()?;
        if start.elapsed() > PATIENCE {
            return Err("the load did not end in 300 s".to_owned());
        }
        if load.ended().is_some_and(|status| !status.success()) {
            // Who died first is the better news.
            sleep(GLANCE * 5);
            self.expect_alive()?;
            return Err(format!("the load failed{}", load.last_words()));
        }
        Ok(())
    }

    /// Fails if the application or the proxy has ended.
    pub(crate) fn expect_alive(&mut self) -> Fallible<()> {
        if let Some(proxy) = &mut self.proxy {
            proxy.expect_alive()?;
        }
        self.application.expect_alive()
    }

    /// The proxy's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.proxy.as_ref().map_or(0, Process::pid)
    }
}

/// The soft limit is often 1,024; the hard one is what counts, and children inherit it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If it fails, `expect_descriptors` says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Fails if a proxy with so many connections would run out of descriptors.
pub(crate) fn expect_descriptors(connections: usize) -> Fallible<()> {
    let needed = 2 * connections as u64 + 100;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(format!(
            "{connections} connections take {needed} descriptors in one process, and the limit is {limit}; raise it, as root: prlimit --pid $$ --nofile={needed}, and run the bench again from that shell"
        )),
        _ => Ok(()),
    }
}
