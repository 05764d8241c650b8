//! The page at `/`, as Chromium shows it.

use super::{Admin, TOKEN, talk};
use crate::browser::Browser;
use crate::client::{Client, handshake};
use crate::programs::wait_until;
use crate::upstream::Upstream;
use crate::web_socket::{CLOSE, Peer, Tunnels};

/// Keys, as `WebDriver` names them (section 17.4.2).
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

/// Opens the page, and waits until it is live.
fn open_page(browser: &Browser, admin: &Admin) {
    browser.open(&format!("http://{}/", admin.address));
    wait_until("the page is live", || shown(browser, "status") == "live");
}

/// The text of the element with this id.
fn shown(browser: &Browser, id: &str) -> String {
    let text = browser.value(&format!("document.getElementById('{id}')?.textContent"));
    text.as_str().unwrap_or_default().trim().to_owned()
}

/// The rows of the table of tunnels, cell by cell.
fn rows(browser: &Browser) -> Vec<Vec<String>> {
    let cells = "[...document.querySelectorAll('#tunnel-rows tr')]\
                 .map((row) => [...row.children].map((cell) => cell.textContent))";
    serde_json::from_value(browser.value(cells)).unwrap()
}

/// The paths in the table, in its order.
fn paths(browser: &Browser) -> Vec<String> {
    rows(browser).into_iter().map(|mut cells| cells.swap_remove(1)).collect()
}

fn click(browser: &Browser, selector: &str) {
    browser.value(&format!("document.querySelector({selector:?}).click()"));
}

/// Types into the field with this id, in place of what is there.
fn fill(browser: &Browser, id: &str, text: &str) {
    browser.value(&format!(
        "[document.getElementById('{id}')].map((field) => (field.focus(), field.select()))"
    ));
    browser.press(if text.is_empty() { "\u{e017}" } else { text });
}

/// A tunnel whose handshake has this target and these further fields.
fn open_with(
    application: &Tunnels,
    admin: &Admin,
    target: &str,
    fields: &str,
    subprotocol: &str,
) -> (Peer, Peer) {
    let mut client = Client::behind_balancer(admin.elbows.address);
    client.send(handshake(target).replace("\r\nConn", &format!("\r\n{fields}Conn")));
    let upstream = application.asked().accept_protocol(subprotocol);
    assert_eq!(client.read_head().status, 101);
    (Peer::client(client), upstream)
}

#[test]
fn page_is_one_answer_that_lets_nothing_else_run() {
    let upstream = Upstream::echo();
    let admin = Admin::start(upstream.address, &[]);
    let page = admin.ask("GET", "/", "");
    assert_eq!((page.status, page.field("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.field("content-security-policy").unwrap();
    for part in [
        "default-src 'none'; script-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(page.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.field("referrer-policy"), Some("no-referrer"));
    assert!(page.text().starts_with("<!doctype html>") && page.text().ends_with("</html>\n"));
    let head = admin.ask("HEAD", "/", "");
    assert_eq!(head.field("content-length"), Some(&*page.body.len().to_string()));
    // Who types the address, and who follows a link of another page.
    for site in ["none", "same-origin", "same-site", "cross-site"] {
        let response = admin.ask("GET", "/", &format!("Sec-Fetch-Site: {site}\r\n"));
        assert_eq!(response.status, 200, "{site}");
    }
    let post = admin.ask("POST", "/", "");
    assert_eq!((post.status, post.field("allow")), (405, Some("GET, HEAD")));
    let mut client = Client::plain(admin.address);
    client.send("GET / HTTP/1.1\r\nHost: rebind.attacker.example\r\n\r\n");
    assert_eq!(client.read_response().status, 403);
}

#[test]
fn page_sorts_searches_and_closes_a_tunnel_whose_client_sees_just_that() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let agents = ["b", "c", "a"].map(|name| format!("User-Agent: agent-{name}\r\n"));
    let mut tunnels: Vec<_> = ["/two", "/three", "/one"]
        .iter()
        .zip(&agents)
        .map(|(path, agent)| open_with(&application, &admin, path, agent, "chat"))
        .collect();
    talk(&mut tunnels[1], b"hello");
    let browser = Browser::start();
    open_page(&browser, &admin);
    let shows = |wanted: &[&str]| {
        wait_until(&format!("the rows are {wanted:?}"), || paths(&browser) == wanted);
    };
    shows(&["/two", "/three", "/one"]);
    click(&browser, "[data-by=path] button");
    shows(&["/one", "/three", "/two"]);
    click(&browser, "[data-by=path] button");
    shows(&["/two", "/three", "/one"]);
    let sorted = "document.querySelector('[data-by=path]').getAttribute('aria-sort')";
    assert_eq!(browser.value(sorted), "descending");
    click(&browser, "[data-by=messages_from_client] button");
    wait_until("the one that spoke is first", || paths(&browser)[0] == "/three");
    let first = rows(&browser).remove(0);
    assert_eq!((first[2].as_str(), first[3].as_str()), ("chat", "open"), "{first:?}");
    // One message, and with the second look none a second.
    wait_until("a rate is told", || rows(&browser)[0][6] == "10/s");
    fill(&browser, "search", "agent-b");
    shows(&["/two"]);
    fill(&browser, "search", "nobody");
    shows(&[]);
    assert_eq!(shown(&browser, "matched"), "0 of 3 tunnels");
    fill(&browser, "search", "/thr");
    shows(&["/three"]);

    // By the keyboard alone from here on.
    browser.value("document.querySelector('#tunnel-rows button').focus()");
    browser.press(ENTER);
    wait_until("its detail is shown", || shown(&browser, "detail-fields").contains("agent-c"));
    wait_until("it can be closed", || {
        browser.value("document.getElementById('detail-close').disabled") == false
    });
    // What does no harm has the focus.
    browser.press(&format!("{TAB}{ENTER}"));
    wait_until("it asks first", || shown(&browser, "closing-title").contains("203.0.113.7"));
    let press_into = |text: &str| browser.press(&format!("{text}{TAB}"));
    press_into("4000");
    press_into("go home");
    browser.press(&format!("wrong{ENTER}"));
    wait_until("the token is refused", || shown(&browser, "closing-fault").contains("ADMIN_TOKEN"));
    assert_eq!(shown(&browser, "tunnel-rows").matches("/three").count(), 1);
    // Nothing has come so far.
    talk(&mut tunnels[1], b"still here");
    browser.value("document.getElementById('token').focus()");
    browser.press(&format!("{TOKEN}{ENTER}"));
    let (client, upstream) = &mut tunnels[1];
    let frame = client.read_frame();
    assert_eq!((frame.opcode, frame.code()), (CLOSE, Some(4000)));
    assert_eq!(&frame.payload[2..], b"go home");
    let note = "Its client is being told 4000 “go home”.";
    wait_until("the page says so", || shown(&browser, "detail-note") == note);
    client.send_frame(CLOSE, &frame.payload);
    assert_eq!(upstream.read_frame().payload, frame.payload);
    tunnels.remove(1);
    wait_until("it has ended", || shown(&browser, "detail-note").starts_with("It has ended"));
    browser.press(ESCAPE);
    wait_until("the list is without it", || rows(&browser).is_empty());
    wait_until("its end is counted", || shown(&browser, "ends").contains("ordered"));
    assert!(shown(&browser, "closes").contains("4xxx of applications"));
    // The token stays in the page's memory, and nowhere else.
    assert_eq!(browser.value("localStorage.length + sessionStorage.length"), 0);
    assert_eq!(browser.value("document.cookie"), "");
    assert!(!browser.value("document.documentElement.outerHTML").to_string().contains(TOKEN));
    fill(&browser, "search", "");
    click(&browser, "[data-by=path] button");
    shows(&["/one", "/two"]);
    for tunnel in &mut tunnels {
        talk(tunnel, b"as before");
    }
}
