//! The binary: settings in, a running server or a clear sentence out.

mod demo;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use elbows::access_log::AccessLog;
use elbows::config::routing::Routing;
use elbows::config::{AdminListenOn, Config, Fault, Settings, file};
use elbows::control::{self, Activation, Order, Outcome, Start, StartError};
use elbows::deployment::{self, Changed, Deployment};
use elbows::handoff;
use elbows::line_writer::Patient;
use elbows::log;
use elbows::notify::Notify;
use elbows::panics;
use elbows::routes::explain::{self, Taken, Typed};
use elbows::sandbox;
use elbows::upstream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The largest `CONFIG_FILE`. More is no such file.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// A fault of the settings, or sockets that were passed and do not fit to them (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// Something else that keeps it from running.
const EXIT_FAILURE: u8 = 1;

/// How long the last lines of both logs have to be written: a reader that stands still must not keep
/// the process from ending.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A WebSocket reverse proxy for applications behind load balancers that speak the PROXY protocol
#[derive(Parser)]
#[command(name = "elbows", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Print the settings in effect and every fault, and exit: 0 if there is none, else 78
    Check(Box<Check>),
    /// Try it: an application, elbows and a stand-in for the load balancer in one process
    Demo(elbows_demo::Options),
    /// Show what an elbows does, live, by its admin port
    Top(Box<elbows_top::Options>),
}

#[derive(Args)]
struct Check {
    /// Print what the drain needs in a place: nlb, elb, ecs, kubernetes or docker; 78 if it does not fit
    #[arg(long = "for", value_name = "PLACE", value_parser = deployment)]
    deployment: Option<Deployment>,
    /// The place kills a process so long after its signal, and not as by default
    #[arg(long, value_name = "TIME", requires = "deployment", value_parser = humantime::parse_duration)]
    killed_after: Option<Duration>,
    /// The balancer's idle timer is this, and not the default
    #[arg(long, value_name = "TIME", requires = "deployment", value_parser = humantime::parse_duration)]
    balancer_idle_timer: Option<Duration>,
    /// Say which route a request takes, and why: a method and a URL with ws, wss, http or https
    #[arg(long, value_name = "[METHOD ]URL", conflicts_with = "deployment")]
    route: Option<String>,
    /// A field of that request, as 'X-Tenant: blue'
    #[arg(long, value_name = "NAME: VALUE", requires = "route")]
    header: Vec<String>,
    #[command(flatten)]
    settings: Settings,
}

fn deployment(text: &str) -> Result<Deployment, String> {
    let all = Deployment::ALL;
    all.into_iter()
        .find(|known| known.as_str() == text)
        .ok_or_else(|| format!("must be one of {}", all.map(Deployment::as_str).join(", ")))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => serve(&cli.settings),
        Some(Command::Check(options)) => check(&options),
        Some(Command::Demo(options)) => show(options),
        Some(Command::Top(options)) => watch(*options),
    }
}

fn check(options: &Check) -> ExitCode {
    let Loaded { config, routing } = match load(&options.settings) {
        Ok(loaded) => loaded,
        Err(faults) => return config_faults(&faults),
    };
    if let Some(request) = &options.route {
        return check_route(request, &options.header, &config, &routing);
    }
    if let Some(deployment) = options.deployment {
        let Check { killed_after, balancer_idle_timer: idle_timer, .. } = *options;
        return check_for(deployment, &config, Changed { killed_after, idle_timer });
    }
    let mut lines = String::new();
    // Writing to a string cannot fail.
    let has_destination = !config.destination_hostname.is_empty();
    let effective = config.effective().into_iter();
    for (variable, value) in
        effective.filter(|(name, _)| has_destination || !name.starts_with("DESTINATION_"))
    {
        let _ = writeln!(lines, "{variable}={value}");
    }
    lines.push_str(&routing.effective(&config));
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("no runtime: {error}")),
    };
    let own = has_destination.then_some(&config);
    let mut warnings = String::new();
    for config in own.into_iter().chain(routing.upstreams.iter().map(|group| &*group.config)) {
        let destination = config.destination();
        let (addresses, faults) =
            runtime.block_on(upstream::resolve(&destination, config.connect_timeout));
        for fault in &faults {
            let meanwhile = upstream::meanwhile(!addresses.is_empty());
            let _ = writeln!(warnings, "warning: {fault}; {meanwhile}");
        }
        if !addresses.is_empty() {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let _ = writeln!(lines, "{destination} resolves to {}", addresses.join(", "));
        }
    }
    // Somebody may have read enough (`elbows check | head`).
    let _ = io::stdout().write_all(lines.as_bytes());
    eprint!("{warnings}");
    ExitCode::SUCCESS
}

fn check_for(deployment: Deployment, config: &Config, changed: Changed) -> ExitCode {
    let findings = deployment::findings(deployment, config, changed);
    // Somebody may have read enough.
    let _ = io::stdout().write_all(deployment::report(&findings).as_bytes());
    let contradictions = deployment::contradictions(&findings);
    eprint!("{contradictions}");
    if contradictions.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

/// Says which route a request takes; 78 if there is none for it.
fn check_route(request: &str, fields: &[String], config: &Config, routing: &Routing) -> ExitCode {
    let typed = match Typed::read(request, fields) {
        Ok(typed) => typed,
        Err(fault) => {
            eprintln!("elbows: {fault}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let has_default = !config.destination_hostname.is_empty();
    let (taken, mut lines) = explain::explain(routing, has_default, &typed);
    lines.push_str(&routing.explained(taken.place(), config));
    if taken == Taken::Default {
        let _ = writeln!(lines, "upstream: default, {}", config.destination());
    }
    // Somebody may have read enough.
    let _ = io::stdout().write_all(lines.as_bytes());
    if taken.is_a_route() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

/// The settings, checked as far as that can be done before anything starts.
struct Loaded {
    config: Config,
    routing: Routing,
}

/// What is wrong with them.
struct Faults {
    of_variables: Vec<Fault>,
    /// Those of `CONFIG_FILE`, as they are told.
    of_file: String,
}

fn load(settings: &Settings) -> Result<Loaded, Faults> {
    let config = Config::from_settings(settings);
    let mut of_variables = match &config {
        Ok(config) => [handoff::check(config), control::check_admin(config)]
            .into_iter()
            .filter_map(Result::err)
            .collect(),
        Err(faults) => faults.clone(),
    };
    // The file is read whatever is wrong with the variables: all faults are told at once.
    let is_refused = of_variables
        .iter()
        .any(|fault| matches!(fault, Fault::Invalid { variable: "CONFIG_FILE", .. }));
    let routing = match settings.config_file().filter(|_| !is_refused) {
        Some(path) => read_file(path, settings, config.as_ref().ok()),
        None => Ok(Routing::default()),
    };
    let of_file = match routing {
        Ok(routing) => match config {
            Ok(config) if of_variables.is_empty() => return Ok(Loaded { config, routing }),
            _ => String::new(),
        },
        Err(FileTrouble::Unreadable(fault)) => {
            of_variables.push(fault);
            String::new()
        }
        Err(FileTrouble::Faults(faults)) => faults,
    };
    Err(Faults { of_variables, of_file })
}

enum FileTrouble {
    Unreadable(Fault),
    Faults(String),
}

fn read_file(
    path: &str,
    settings: &Settings,
    config: Option<&Config>,
) -> Result<Routing, FileTrouble> {
    let unreadable = |rule: String| {
        FileTrouble::Unreadable(Fault::Invalid {
            variable: "CONFIG_FILE",
            value: path.to_owned(),
            rule,
        })
    };
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut text))
        .map_err(|error| unreadable(format!("it cannot be read: {error}")))?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(unreadable(String::from("it is larger than 16 MiB")));
    }
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unreadable(format!("it is no text in UTF-8: byte {at} begins no character"))
    })?;
    file::read(&text, settings, config)
        .map_err(|faults| FileTrouble::Faults(file::rendered(&faults, path, &text)))
}

fn serve(settings: &Settings) -> ExitCode {
    let Loaded { config, routing } = match load(settings) {
        Ok(loaded) => loaded,
        Err(faults) => return config_faults(&faults),
    };
    // The variables that say what was passed are removed: before the first thread, too.
    let activation = match Activation::from_environment(&config) {
        Ok(activation) => activation,
        Err(error) => {
            eprintln!("elbows: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let notify = match Notify::from_environment() {
        Ok(notify) => notify,
        Err(error) => return failure(&format!("NOTIFY_SOCKET: {error}")),
    };
    // Before the first thread, since each has what its starter had.
    let admin = config.admin_listen_on.as_ref().and_then(AdminListenOn::path);
    let sockets: Vec<_> =
        config.handoff_socket.iter().chain(admin).filter_map(|path| path.parent()).collect();
    let sandbox = match sandbox::enter(config.sandbox, &sockets) {
        Ok(entered) => entered,
        Err(error) => return failure(&format!("SANDBOX={}: {error}", config.sandbox.as_str())),
    };
    let log_writer = match log::start(&config.log) {
        Ok(writer) => writer,
        Err(error) => return failure(&format!("the log cannot be started: {error}")),
    };
    tracing::info!("sandbox: {}", sandbox.as_str());
    let ended = run(config, &routing, activation, notify);
    // The log says how it came to a failure. If its lines cannot be written, nobody would read of that.
    let _ = log_writer.finish(LAST_LINES);
    match ended {
        Ok(code) => code,
        Err(fault) => failure(&fault),
    }
}

/// Serves, and logs, to the end.
fn run(
    config: Config,
    routing: &Routing,
    activation: Activation,
    notify: Notify,
) -> Result<ExitCode, String> {
    panics::install();
    raise_descriptor_limit();
    let runtime = runtime().map_err(|error| format!("no runtime: {error}"))?;
    // Before anybody can connect: who sees it listen may signal it, and as PID 1 a signal without
    // handler is nothing at all.
    let mut orders = runtime
        .block_on(async { orders_from_signals() })
        .map_err(|error| format!("signals cannot be handled: {error}"))?;
    let start = match runtime.block_on(Start::new(&config, activation, &mut orders)) {
        Ok(start) => start,
        Err(error @ StartError::Stopped) => {
            tracing::info!("{error}");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.to_string()),
    };
    let (access_log, writer) = AccessLog::start(&config, Patient(io::stdout()))
        .map_err(|error| format!("the access log cannot be started: {error}"))?;
    let outcome =
        runtime.block_on(control::run(config, routing, start, access_log, orders, notify));
    // Whatever still runs was cut, and its line was written.
    runtime.shutdown_background();
    if !writer.finish(LAST_LINES) {
        tracing::warn!("nobody reads the access log: its last lines are lost");
    }
    match outcome {
        Ok(Outcome { hurried: true, cut }) if cut > 0 => Ok(ExitCode::from(EXIT_FAILURE)),
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.to_string()),
    }
}

/// The demo logs only what is wrong: the terminal belongs to what it says itself.
fn show(options: elbows_demo::Options) -> ExitCode {
    let writer = match log::start("warn") {
        Ok(writer) => writer,
        Err(error) => return failure(&format!("the log cannot be started: {error}")),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("no runtime: {error}")),
    };
    let ended = runtime.block_on(elbows_demo::run(options, demo::front));
    let _ = writer.finish(LAST_LINES);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => failure(&fault.to_string()),
    }
}

fn watch(options: elbows_top::Options) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("no runtime: {error}")),
    };
    let ended = runtime.block_on(elbows_top::run(options));
    // A name that is being looked up is waited for no longer.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("elbows: {fault}");
            ExitCode::from(fault.exit_code())
        }
    }
}

/// Control's: one thread, for workers have their own.
fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// SIGTERM and SIGINT stop, SIGUSR1 reports. SIGHUP is nothing to us: a container has no terminal to
/// lose, and there is no file to read again.
fn orders_from_signals() -> io::Result<mpsc::Receiver<Order>> {
    let (sender, orders) = mpsc::channel(1);
    for (kind, order) in [
        (SignalKind::terminate(), Order::Stop),
        (SignalKind::interrupt(), Order::Stop),
        (SignalKind::user_defined1(), Order::Report),
    ] {
        let mut signals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send(order).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move { while hang_up.recv().await.is_some() {} });
    Ok(orders)
}

/// Each connection takes two descriptors, and the usual soft limit is 1,024. The hard one is meant.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

fn config_faults(Faults { of_variables, of_file }: &Faults) -> ExitCode {
    for fault in of_variables {
        eprintln!("elbows: {fault}");
    }
    eprint!("{of_file}");
    ExitCode::from(EXIT_CONFIG)
}

fn failure(text: &str) -> ExitCode {
    eprintln!("elbows: {text}");
    ExitCode::from(EXIT_FAILURE)
}
