//! nginx: one process, no master unless it is to be reloaded. Bodies are passed on as they come, as the others do, and never to a file;
//! buffers and all else as by default.

use std::net::SocketAddr;
use std::path::Path;

use super::{ROOM, Replacement, Setup, find, write};
use crate::Fallible;
use crate::process::Program;

pub(super) fn program(
    cores: &[usize],
    scratch: &Path,
    addresses: [SocketAddr; 2],
    setup: &Setup,
) -> Fallible<Program> {
    let folder = scratch.display().to_string();
    let configuration = configuration(&folder, addresses, setup);
    let file = write(scratch, "nginx.conf", &configuration)?;
    Ok(Program::new("nginx", cores, &find("nginx")?)
        .argument("-e")
        .argument("stderr")
        .argument("-p")
        .argument(folder)
        .argument("-c")
        .argument(file))
}

pub(super) fn configuration(
    scratch: &str,
    [listen, application]: [SocketAddr; 2],
    setup: &Setup,
) -> String {
    // A reload takes a master; its workers are root's where it is, for they have their files in a directory that is nobody
    // else's.
    let processes = match setup.replacement {
        None => "master_process off;".to_owned(),
        Some(Replacement { stays, .. }) => {
            let stays =
                stays.map(|stays| format!("\nworker_shutdown_timeout {}s;", stays.as_secs()));
            format!("master_process on;\nuser root;{}", stays.unwrap_or_default())
        }
    };
    // A connection to the application is one of them, too.
    let connections = 2 * ROOM + 100;
    let servers = match setup.endpoints {
        None => format!("        server {application};"),
        Some(endpoints) => {
            let server = |address| format!("\n        server {address} fail_timeout=1s;");
            let servers: String = endpoints.addresses().map(server).collect();
            format!("        least_conn;{servers}")
        }
    };
    format!(
        "daemon off;
{processes}
pid {scratch}/nginx.pid;
error_log stderr error;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    scgi_temp_path {scratch}/scgi;
    uwsgi_temp_path {scratch}/uwsgi;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    map $http_upgrade $connection_header {{
        default upgrade;
        '' '';
    }}
    upstream application {{
{servers}
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen} proxy_protocol backlog=4096;
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_header;
            proxy_set_header X-Forwarded-For $proxy_protocol_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Real-IP $proxy_protocol_addr;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"
    )
}
