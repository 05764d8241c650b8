//! The model as it is drawn, character by character.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::*;
use crate::answers::{Look, Trouble};
use crate::filters::Question;
use crate::model::{Input, Key, Output};
use crate::sample;
use crate::text::{Text, is_harmless};

const SECOND: Duration = Duration::from_secs(1);

fn buffer(model: &mut Model, wide: u16, high: u16, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(wide, high)).unwrap();
    terminal.draw(|frame| draw(frame, model, theme)).unwrap();
    terminal.backend().buffer().clone()
}

/// What is seen, without the spaces at the ends of lines.
fn screen(model: &mut Model, wide: u16, high: u16) -> String {
    let buffer = buffer(model, wide, high, Theme { has_colours: true });
    let line = |y| -> String {
        let mut line = String::new();
        let mut hidden = 0;
        for x in 0..wide {
            let symbol = buffer[(x, y)].symbol();
            // The second column of a wide character.
            if hidden > 0 {
                hidden -= 1;
                continue;
            }
            hidden = crate::text::width(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        line.trim_end().to_owned()
    };
    (0..high).map(line).collect::<Vec<_>>().join("\n")
}

fn tunnels() -> Vec<Value> {
    let mut all = vec![
        sample::tunnel(1, "/chat/a"),
        sample::tunnel(2, "/chat/a-room-with-a-long-name"),
        sample::tunnel(3, "/漢字漢字漢字漢字漢字"),
    ];
    all[1]["state"] = json!("closing");
    all[1]["ping_rtt"] = Value::Null;
    all[2]["state"] = json!("half_closed");
    all[2]["waiting_for_client"] = json!(65_536);
    all[2]["subprotocol"] = json!("graphql-transport-ws");
    all
}

fn question() -> Question {
    Question { limit: 100, ..Question::default() }
}

fn model_of(look: Look) -> Model {
    Model::new(Text::clean("127.0.0.1:9145"), true, question(), look)
}

/// After two looks, a second apart.
fn model() -> Model {
    let mut model = model_of(sample::look(sample::summary(4711, 11_519), &tunnels(), None));
    let mut later = tunnels();
    later[0]["from_client"] = json!(1_500);
    later[2]["messages_from_upstream"] = json!(1_300);
    let look = sample::look(sample::summary(4711, 11_520), &later, None);
    let _ = model.update(Input::Second, SECOND);
    let _ = model.update(Input::Looked(Ok(Box::new(look))), SECOND);
    model
}

fn press(model: &mut Model, keys: &[Key]) -> Output {
    keys.iter().fold(Output::Nothing, |_, key| model.update(Input::Key(*key), model.now))
}

#[test]
fn table_fits_into_80_columns_and_24_lines() {
    let expected = "\
elbows 0.1.0 at 127.0.0.1:9145  pid 4711  up 3h12m                       serving
tunnels   12345 open  3.0/s opened  1.0/s ended  in all 54k opened  19k ended
messages  1.0k/s from clients  2.5k/s from upstreams  in all 11M  28M
payload   64k B/s from clients  1.0M B/s from upstreams  in all 737M  11G
ends      client/relay/closed 7.6k  elbows/relay/ordered 2
closes    1000 by client 7.0k
endpoints 10.0.0.5:45490
process   cpu 25%  memory 34MB  fds 24k of 1.0M  workers 4  connections 12
tunnels: 3 of 12345 open, by id, more columns: Right
client            path             state      age   idle m/s c>u m/s u>c B/s c>u
203.0.113.1:51234 /chat/a          open     1h00m     2s       0       0     500
203.0.113.2:51234 /chat/a-room-wi… closing  1h00m     2s       0       0       0
203.0.113.3:51234 /漢字漢字漢字漢… half     1h00m     2s       0    1.2k       0
";
    let foot = "\n\nq quit  / filter  s sort  r reverse  Enter detail  c close  t totals  ? help";
    assert_eq!(screen(&mut model(), 80, 24), format!("{expected}{}{foot}", "\n".repeat(8)));
}

/// The example of docs/admin.md is what is drawn.
#[test]
fn documented_screen_is_what_is_seen() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/admin.md");
    let document = std::fs::read_to_string(document).unwrap();
    let all = ["/chat/lobby", "/prices?...", "/chat/support", "/prices?..."];
    let mut tunnels: Vec<_> = all
        .iter()
        .zip([7, 24, 91, 102])
        .map(|(path, number)| sample::tunnel(number, path))
        .collect();
    // As many are open as were opened and have not ended.
    let summary = |uptime: u64| {
        let mut summary = sample::summary(4711, uptime);
        summary["tunnels_opened"] = json!(31_520 - 3 * (11_520 - uptime));
        summary
    };
    let mut model = model_of(sample::look(summary(11_519), &tunnels, None));
    tunnels[0]["from_client"] = json!(7_420);
    tunnels[0]["messages_from_client"] = json!(73);
    tunnels[1]["messages_from_upstream"] = json!(500);
    tunnels[1]["idle"] = json!(0.5);
    tunnels[2]["state"] = json!("closing");
    tunnels[3]["messages_from_upstream"] = json!(2_060);
    let look = sample::look(summary(11_520), &tunnels, None);
    let _ = model.update(Input::Second, SECOND);
    let _ = model.update(Input::Looked(Ok(Box::new(look))), SECOND);
    let seen = screen(&mut model, 80, 16);
    assert!(document.contains(&format!("```text\n{seen}\n```")), "{seen}");
}

#[test]
fn other_columns_come_by_moving_over_them() {
    let mut model = model();
    let _ = press(&mut model, &[Key::Right; 50]);
    let table = |seen: String| seen.lines().skip(8).take(5).collect::<Vec<_>>().join("\n");
    assert_eq!(
        table(screen(&mut model, 80, 24)),
        "\
tunnels: 3 of 12345 open, by id, more columns: Left
client            path           B c>u B u>c wait>c wait>u   ping subprotocol
203.0.113.1:51234 /chat/a         1.5k  2.0k      0      0   12ms -
203.0.113.2:51234 /chat/a-room-…  2.0k  4.0k      0      0      - -
203.0.113.3:51234 /漢字漢字漢字…  3.0k  6.0k    65k      0   12ms graphql-trans…"
    );
    // Where there is room for all, none is moved over.
    let wide = table(screen(&mut model, 170, 24));
    let heads = "client path state age idle m/s c>u m/s u>c B/s c>u B/s u>c msg c>u msg u>c B c>u B u>c \
                 wait>c wait>u ping subprotocol";
    let words: Vec<_> = wide.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words.join(" "), heads);
    assert!(wide.lines().all(|line| !line.contains("more columns")), "{wide}");
    assert_eq!(model.shifted, 0);
}

#[test]
fn low_terminals_show_tunnels_before_numbers() {
    let mut model = model();
    assert_eq!(
        screen(&mut model, 80, 10),
        "\
elbows 0.1.0 at 127.0.0.1:9145  pid 4711  up 3h12m                       serving
tunnels   12345 open  3.0/s opened  1.0/s ended  in all 54k opened  19k ended
tunnels: 3 of 12345 open, by id, more columns: Right
client            path             state      age   idle m/s c>u m/s u>c B/s c>u
203.0.113.1:51234 /chat/a          open     1h00m     2s       0       0     500
203.0.113.2:51234 /chat/a-room-wi… closing  1h00m     2s       0       0       0
203.0.113.3:51234 /漢字漢字漢字漢… half     1h00m     2s       0    1.2k       0


q quit  / filter  s sort  r reverse  Enter detail  c close  t totals  ? help"
    );
    let _ = press(&mut model, &[Key::Down]);
    assert_eq!(
        screen(&mut model, 20, 5),
        "\
elbows 0.1.… serving
client            pa
203.0.113.2:51234 /…

q quit  / filter  s"
    );
}

/// Every screen and prompt, in every size down to a single place.
#[test]
fn no_size_is_too_small_for_any_screen() {
    let code = [Key::Char('c')];
    let reason = [Key::Char('c'), Key::Enter, Key::Char('x')];
    let sure = [Key::Char('c'), Key::Enter, Key::Enter];
    let all: [&[Key]; 9] = [
        &[],
        &[Key::Right; 9],
        &[Key::Enter],
        &[Key::Char('t'), Key::End],
        &[Key::Char('?'), Key::Down],
        &[Key::Char('/'), Key::Char('x')],
        &code,
        &reason,
        &sure,
    ];
    for keys in all {
        let mut model = model();
        let _ = press(&mut model, keys);
        for wide in [1, 2, 3, 9, 10, 11, 20, 33, 34, 79, 80, 120, 300] {
            for high in (1..=12).chain([24, 100]) {
                let seen = screen(&mut model, wide, high);
                assert_eq!(seen.split('\n').count(), usize::from(high));
            }
        }
    }
}

/// What clients and a server that is none of ours can send: no order to a terminal, and no line that is not where it
/// belongs.
#[test]
fn hostile_text_is_a_sign_in_its_place_on_every_screen() {
    let hostile = "/\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{7f}\r\n\u{202e}x\u{2066}y\u{200d}";
    let shown = "/\u{fffd}]0;title\u{fffd}\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}\u{fffd}\u{fffd}x\u{fffd}y\u{fffd}";
    let mut tunnel = sample::tunnel(1, hostile);
    for name in ["host", "user_agent", "subprotocol", "client", "state", "request_id", "close_by"] {
        tunnel[name] = json!(hostile);
    }
    tunnel["close_code"] = json!(4_000);
    let mut summary = sample::summary(1, 1);
    for (list, name) in [("ends", "by"), ("ends", "why"), ("closes", "code"), ("closes", "by")] {
        summary[list][0][name] = json!(hostile);
    }
    summary["version"] = json!("\u{1b}[31m0.1");
    let look = |one| {
        let mut look = sample::look(summary.clone(), std::slice::from_ref(&tunnel), one);
        look.endpoints.fault = serde_json::from_value(json!(hostile)).unwrap();
        look
    };
    for keys in [&[][..], &[Key::Enter], &[Key::Char('t')], &[Key::Char('c')], &[Key::Right; 30]] {
        let mut model = model_of(look(None));
        let _ = press(&mut model, keys);
        let _ = model.update(Input::Looked(Ok(Box::new(look(Some(tunnel.clone()))))), SECOND);
        let seen = screen(&mut model, 120, 40);
        assert!(seen.chars().all(|one| one == '\n' || is_harmless(one)), "{seen:?}");
        assert!(seen.contains(shown) || seen.contains(&shown[..20]), "{keys:?}\n{seen}");
        let refused = Trouble::Refused(Text::clean(hostile), 503);
        let _ = model.update(Input::Looked(Err(refused)), SECOND);
        let seen = screen(&mut model, 120, 40);
        assert!(seen.chars().all(|one| one == '\n' || is_harmless(one)), "{seen:?}");
        assert!(seen.starts_with("elbows \u{fffd}[31m0.1 at"), "{seen}");
    }
}

#[test]
fn one_tunnel_is_shown_with_all_that_is_known_of_it() {
    let mut model = model();
    let _ = press(&mut model, &[Key::Down, Key::Enter]);
    let mut one = sample::tunnel(2, &format!("/chat/{}", "x".repeat(90)));
    one["close_code"] = json!(1001);
    one["close_by"] = json!("elbows");
    one["messages_from_client"] = json!(25);
    one["handoffs"] = json!(2);
    let look = sample::look(sample::summary(4711, 11_521), &tunnels(), Some(one));
    let _ = model.update(Input::Looked(Ok(Box::new(look))), 2 * SECOND);
    assert_eq!(
        screen(&mut model, 80, 24),
        format!(
            "\
elbows 0.1.0 at 127.0.0.1:9145  pid 4711  up 3h12m                       serving
id             0-2-00000000000000ab
client         203.0.113.2:51234
balancer       10.0.0.2:40000
upstream       10.0.0.5:45490
request        GET /chat/{}
               {} HTTP/1.1
host           chat.example
user agent     Browser/1.0
subprotocol    -
request id     request-2
protocol       websocket
state          open
age            1h00m
idle           2s
from client    25 messages, 5.0/s; 2000 bytes, 0/s, 1800 of them payload
from upstream  40 messages, 0/s; 4000 bytes, 0/s, 3800 of them payload
waiting        0 for the client, 0 for the upstream
ping           12ms, at worst 250ms
Close          1001 by elbows
handed over    2 times


q quit  Esc back  c close  Up Down scroll  ? help",
            "x".repeat(55),
            "x".repeat(35)
        )
    );
    // On a low terminal it goes on below.
    let _ = press(&mut model, &[Key::End]);
    let seen = screen(&mut model, 80, 6);
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(
        lines[1..4],
        [
            "ping           12ms, at worst 250ms",
            "Close          1001 by elbows",
            "handed over    2 times"
        ]
    );
}

#[test]
fn drain_shows_how_far_it_is() {
    let mut summary = sample::summary(1, 60);
    summary["draining"] = json!(true);
    summary["tunnels_open"] = json!(50);
    summary["drain"] = json!({ "answered": 140, "unanswered": 8, "cut": 2 });
    let mut model = model_of(sample::look(summary, &[], None));
    let seen = screen(&mut model, 80, 24);
    let lines: Vec<_> = seen.lines().take(2).collect();
    assert_eq!(
        lines,
        [
            "elbows 0.1.0 at 127.0.0.1:9145  pid 1  up 1m00s                         DRAINING",
            "drain     [###############-----] 75%  50 open  140 answered  8 unanswered  2 cut",
        ]
    );
}

/// Whatever numbers are answered: as large as there are, and no numbers of this world.
#[test]
fn no_number_is_too_large() {
    let most = |value: &mut Value| {
        for (name, value) in value.as_object_mut().unwrap() {
            if value.is_u64() && name != "pid" {
                *value = json!(u64::MAX);
            } else if value.is_f64() {
                *value = json!(-1e308);
            }
        }
    };
    let (mut summary, mut tunnel) = (sample::summary(1, 1), sample::tunnel(1, "/x"));
    most(&mut summary);
    most(&mut tunnel);
    summary["drain"] = json!({ "answered": u64::MAX, "unanswered": u64::MAX, "cut": 1 });
    summary["draining"] = json!(true);
    for keys in [&[][..], &[Key::Enter], &[Key::Char('t')]] {
        let mut model = model_of(sample::look(sample::summary(1, 1), &[], None));
        for seconds in [1, 2] {
            let tunnels = std::slice::from_ref(&tunnel);
            let look = sample::look(summary.clone(), tunnels, Some(tunnel.clone()));
            let _ = model.update(Input::Looked(Ok(Box::new(look))), seconds * SECOND);
            let _ = press(&mut model, keys);
            assert!(screen(&mut model, 200, 24).contains("DRAINING"));
        }
    }
}

#[test]
fn totals_help_prompts_and_faults_have_their_places() {
    let mut model = model();
    let _ = press(&mut model, &[Key::Char('t')]);
    let seen = screen(&mut model, 80, 24);
    assert_eq!(
        seen.lines().skip(1).take(8).collect::<Vec<_>>().join("\n"),
        "\
ends of tunnels: by whom, when and why
  client/relay/closed 7653
  elbows/relay/ordered 2
first Closes: code and sender
  1000 by client 7000
endpoints
  10.0.0.5:45490
tunnels that were handed over"
    );
    let _ = press(&mut model, &[Key::Char('?')]);
    let seen = screen(&mut model, 80, 24);
    assert_eq!(seen.lines().skip(1).take(HELP.len()).collect::<Vec<_>>(), HELP);

    let _ = press(&mut model, &[Key::Escape, Key::Char('/'), Key::Char('x')]);
    let foot = |model: &mut Model| {
        let seen = screen(model, 80, 24);
        seen.lines().skip(22).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        foot(&mut model),
        [
            "TEXT in the path, search= client= upstream= older= idle= state=; Enter, Esc",
            "filter: x_"
        ]
    );
    let _ = press(&mut model, &[Key::Escape, Key::Down, Key::Char('c')]);
    assert_eq!(foot(&mut model)[0], "203.0.113.2:51234 /chat/a-room-wi… is being closed already");
    let _ = press(&mut model, &[Key::Up, Key::Char('c')]);
    assert_eq!(
        foot(&mut model),
        [
            "1000 to 1003, 1007 to 1014, 3000 to 4999; Enter goes on, Esc leaves",
            "close 203.0.113.1:51234 /chat/a: code (none: DRAIN_CLOSE_CODE): _",
        ]
    );
    let _ = press(&mut model, &[Key::Enter]);
    for _ in 0..3 {
        let _ =
            press(&mut model, &[Key::Char('a'), Key::Char(' '), Key::Char('b'), Key::Char('c')]);
    }
    // What is being typed is seen.
    assert!(foot(&mut model)[1].ends_with("a bca bca bc_"), "{:?}", foot(&mut model));
    let _ = press(&mut model, &[Key::Enter]);
    assert_eq!(foot(&mut model)[0], "y closes it, n leaves it open");
    let _ = press(&mut model, &[Key::Char('n')]);
    assert_eq!(foot(&mut model)[0], "203.0.113.1:51234 /chat/a stays open");

    let gone =
        Trouble::Unreachable { place: Text::clean("9145"), why: Text::clean("connection refused") };
    let _ = model.update(Input::Looked(Err(gone)), 60 * SECOND);
    assert!(screen(&mut model, 80, 24).lines().next().unwrap().ends_with("NO ANSWER"));
    assert_eq!(
        foot(&mut model)[0],
        "no answer from 9145: connection refused; asking again for 0 s"
    );
}

#[test]
fn without_colours_all_is_told_by_words_and_places() {
    let mut model = model();
    let with = buffer(&mut model, 80, 24, Theme { has_colours: true });
    assert!(with.content().iter().any(|cell| cell.fg != Color::Reset));
    let without = buffer(&mut model, 80, 24, Theme { has_colours: false });
    assert!(
        without.content().iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset))
    );
    let symbols = |buffer: &Buffer| -> Vec<String> {
        buffer.content().iter().map(|cell| cell.symbol().to_owned()).collect()
    };
    assert_eq!(symbols(&with), symbols(&without));
}
