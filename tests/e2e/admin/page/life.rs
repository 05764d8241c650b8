//! The page while tabs, processes and tunnels come and go.

use super::*;

/// What has the focus: its id, or the path in its row.
fn focused(browser: &Browser) -> String {
    let focused = browser.value(
        "document.activeElement.closest('#tunnel-rows tr')?.children[1].textContent \
         ?? (document.activeElement.id || document.activeElement.tagName)",
    );
    focused.as_str().unwrap().to_owned()
}

/// A browser has six connections to one place, for all of its tabs together.
#[test]
fn page_is_live_in_each_of_eight_tabs_when_it_is_seen() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let _tunnel = application.open(&admin.elbows);
    let browser = Browser::start();
    let first = browser.tab();
    for tab in 1..=8 {
        if tab > 1 {
            browser.new_tab();
        }
        open_page(&browser, &admin);
        wait_until(&format!("tab {tab} lists the tunnel"), || paths(&browser) == ["/ws"]);
    }
    browser.go_to(&first);
    let uptime = || browser.value("before.uptime").as_f64().unwrap();
    let before = uptime();
    wait_until("the first one goes on", || uptime() > before);
    let _other = application.open(&admin.elbows);
    wait_until("it lists the other tunnel", || paths(&browser) == ["/ws", "/ws"]);
}

#[test]
fn table_and_detail_say_that_they_are_old() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let _tunnel = application.open(&admin.elbows);
    let browser = Browser::start();
    open_page(&browser, &admin);
    wait_until("it lists the tunnel", || paths(&browser) == ["/ws"]);
    click(&browser, "#tunnel-rows button");
    wait_until("its detail", || shown(&browser, "detail-fields").contains("Handoffs"));
    let both = || ["tunnels-fault", "detail-fault"].map(|id| shown(&browser, id));
    assert_eq!(both(), ["", ""]);
    // It takes connections, and answers nothing.
    admin.elbows.signal(Signal::STOP);
    wait_until("both say it", || {
        both().iter().all(|told| told.starts_with("No answer for some seconds"))
    });
    admin.elbows.signal(Signal::CONT);
    wait_until("both are up to date", || both() == ["", ""]);
}

#[test]
fn page_of_the_list_that_is_gone_is_left() {
    let directory = crate::handoff::directory();
    let handoff = directory.path().join("handoff.sock");
    let application = Tunnels::start();
    let settings = [("HANDOFF_SOCKET", handoff.to_str().unwrap())];
    let mut admin = Admin::start(application.address, &settings);
    let mut tunnels: Vec<_> = (0..205).map(|_| application.open(&admin.elbows)).collect();
    let browser = Browser::start();
    open_page(&browser, &admin);
    let matched = |wanted: &str| {
        wait_until(wanted, || shown(&browser, "matched") == wanted);
    };
    matched("205 tunnels; page 1 of 2");
    click(&browser, "#next");
    matched("205 tunnels; page 2 of 2");
    // The oldest are on the first page.
    tunnels.truncate(200);
    matched("200 tunnels");
    assert_eq!(rows(&browser).len(), 200);
    tunnels.extend((0..5).map(|_| application.open(&admin.elbows)));
    matched("205 tunnels; page 1 of 2");
    click(&browser, "#next");
    matched("205 tunnels; page 2 of 2");
    // The places of another process are others.
    admin.elbows.signal(Signal::KILL);
    admin.elbows.wait();
    admin.elbows = at_the_places_of(&admin, application.address, &handoff);
    let _new: Vec<_> = (0..3).map(|_| application.open(&admin.elbows)).collect();
    matched("3 tunnels");
    assert_eq!(rows(&browser).len(), 3);
}

#[test]
fn focus_goes_on_to_the_next_row_where_its_own_goes() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let mut tunnels: Vec<_> = ["/one", "/two", "/three"]
        .map(|path| open_with(&application, &admin, path, "User-Agent: agent\r\n", "chat"))
        .into();
    let browser = Browser::start();
    open_page(&browser, &admin);
    wait_until("all are listed", || paths(&browser) == ["/one", "/two", "/three"]);
    browser.value("document.querySelectorAll('#tunnel-rows button')[1].focus()");
    assert_eq!(focused(&browser), "/two");
    tunnels.remove(1);
    wait_until("its row is gone", || paths(&browser) == ["/one", "/three"]);
    assert_eq!(focused(&browser), "/three");
    // There is none behind the last one.
    tunnels.remove(1);
    wait_until("that one is gone", || paths(&browser) == ["/one"]);
    assert_eq!(focused(&browser), "/one");
    browser.press(ENTER);
    wait_until("its detail is shown", || shown(&browser, "detail-fields").contains("agent"));
    tunnels.clear();
    wait_until("the last one is gone", || rows(&browser).is_empty());
    wait_until("its end is told", || shown(&browser, "detail-note").starts_with("It has ended"));
    browser.press(ESCAPE);
    wait_until("the table has the focus", || focused(&browser) == "tunnels");
}

#[test]
fn tunnels_of_an_endpoint_are_those_that_go_there() {
    let application = Tunnels::start();
    let admin = Admin::start(application.address, &[]);
    let _tunnel = application.open(&admin.elbows);
    let browser = Browser::start();
    open_page(&browser, &admin);
    let endpoint = application.address.to_string();
    wait_until("the endpoint is told", || shown(&browser, "endpoints").contains(&endpoint));
    let asks_for = |parameter: &str| {
        let asked = "performance.getEntriesByType('resource').map(({ name }) => name)\
                     .filter((name) => name.includes('/api/tunnels?')).at(-1)";
        wait_until(parameter, || browser.value(asked).as_str().unwrap().contains(parameter));
    };
    let upstream = format!("&upstream=127.0.0.1%3A{}", application.address.port());
    click(&browser, "#endpoints button");
    asks_for(&upstream);
    assert_eq!(shown(&browser, "upstream"), format!("only of {endpoint} ×"));
    wait_until("its tunnel is listed", || paths(&browser) == ["/ws"]);
    click(&browser, "#upstream");
    let is_hidden = "document.getElementById('upstream').hidden";
    assert_eq!(browser.value(is_hidden), true);
    wait_until("all are asked for again", || {
        let asked = "performance.getEntriesByType('resource').at(-1).name";
        !browser.value(asked).as_str().unwrap().contains("upstream=")
    });
}

#[test]
fn tunnel_that_is_no_websocket_is_said_to_end_without_a_close() {
    let upstream = Upstream::other_echo();
    let admin = Admin::start(upstream.address, &[]);
    let mut client = Client::other_tunnel(&admin.elbows);
    let browser = Browser::start();
    open_page(&browser, &admin);
    wait_until("it is listed", || rows(&browser).len() == 1);
    click(&browser, "#tunnel-rows button");
    wait_until("it can be closed", || {
        browser.value("document.getElementById('detail-close').disabled") == false
    });
    click(&browser, "#detail-close");
    let what = "It is no WebSocket: it is ended in both directions, without a Close. It cannot be taken back.";
    assert_eq!(shown(&browser, "closing-what"), what);
    assert_eq!(
        browser.value("document.getElementById('code').offsetParent"),
        serde_json::Value::Null
    );
    fill(&browser, "token", TOKEN);
    browser.press(ENTER);
    let note = "It is being ended, without a Close: it is no WebSocket.";
    wait_until("the page says so", || shown(&browser, "detail-note") == note);
    assert_eq!(client.read_to_end().unwrap_or_default(), b"");
}
