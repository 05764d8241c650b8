//! Keys and looks go in; what is shown and asked for is what comes of them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::filters::Order;
use crate::sample;

const SECOND: Duration = Duration::from_secs(1);

fn question() -> Question {
    Question { limit: 100, ..Question::default() }
}

fn tunnels() -> Vec<Value> {
    ["/chat/a", "/chat/b", "/news"]
        .iter()
        .zip(1..)
        .map(|(path, number)| sample::tunnel(number, path))
        .collect()
}

fn model_with(tunnels: &[Value]) -> Model {
    let look = sample::look(sample::summary(7, 100), tunnels, None);
    Model::new(Text::clean("127.0.0.1:9145"), true, question(), look)
}

fn model() -> Model {
    model_with(&tunnels())
}

fn press(model: &mut Model, key: Key) -> Output {
    model.update(Input::Key(key), model.now)
}

fn type_text(model: &mut Model, text: &str) {
    for one in text.chars() {
        assert_eq!(press(model, Key::Char(one)), Output::Nothing, "{text}");
    }
}

/// A second later this is what there is.
fn see(model: &mut Model, look: Look) -> Output {
    let now = model.now + SECOND;
    let _ = model.update(Input::Second, now);
    model.update(Input::Looked(Ok(Box::new(look))), now)
}

fn fail(model: &mut Model, trouble: Trouble) -> Output {
    let now = model.now + SECOND;
    let _ = model.update(Input::Second, now);
    model.update(Input::Looked(Err(trouble)), now)
}

fn selected(model: &Model) -> &str {
    model.rows[model.selected].tunnel.path.as_str()
}

#[test]
fn each_second_one_question_is_asked_and_none_while_one_is_open() {
    let mut model = model();
    assert_eq!(model.update(Input::Second, SECOND), Output::Ask(question()));
    assert_eq!(model.update(Input::Second, 2 * SECOND), Output::Nothing);
    let look = sample::look(sample::summary(7, 102), &tunnels(), None);
    assert_eq!(model.update(Input::Looked(Ok(Box::new(look))), 2 * SECOND), Output::Nothing);
    assert_eq!(model.update(Input::Second, 3 * SECOND), Output::Ask(question()));
}

#[test]
fn rates_are_what_came_between_two_looks() {
    let mut model = model();
    assert_eq!((model.rates.opened, model.rows[0].bytes), (None, [None, None]));
    let mut later = tunnels();
    later[0]["from_client"] = json!(1_500);
    later[0]["messages_from_upstream"] = json!(24);
    later.push(sample::tunnel(9, "/new"));
    let now = 2 * SECOND;
    let _ = model.update(Input::Second, now);
    let look = sample::look(sample::summary(7, 102), &later, None);
    let _ = model.update(Input::Looked(Ok(Box::new(look))), now);
    assert_eq!((model.rates.opened, model.rates.ended), (Some(3.0), Some(1.0)));
    assert_eq!(model.rates.messages, [Some(1_000.0), Some(2_500.0)]);
    assert_eq!(model.rates.cpu, Some(0.25));
    assert_eq!(model.rows[0].bytes, [Some(250.0), Some(0.0)]);
    assert_eq!(model.rows[0].messages, [Some(0.0), Some(2.0)]);
    // One look alone has no rate.
    assert_eq!(model.rows[3].bytes, [None, None]);
}

#[test]
fn order_goes_through_all_fields_and_is_reversed() {
    let mut model = model();
    let mut asked = BTreeSet::new();
    for _ in ORDERS {
        let Output::Ask(question) = press(&mut model, Key::Char('s')) else { panic!("not asked") };
        asked.insert(question.order.name());
        let look = sample::look(sample::summary(7, 100), &tunnels(), None);
        let _ = model.update(Input::Looked(Ok(Box::new(look))), model.now);
    }
    assert_eq!(asked, BTreeSet::from(ORDERS));
    assert_eq!(model.question.order, Order::default());
    let Output::Ask(question) = press(&mut model, Key::Char('r')) else { panic!("not asked") };
    assert_eq!(question.order.text(), "-id");
    // While that is open, the next is asked behind it.
    assert_eq!(press(&mut model, Key::Char('S')), Output::Nothing);
    let look = sample::look(sample::summary(7, 100), &tunnels(), None);
    let Output::Ask(question) = model.update(Input::Looked(Ok(Box::new(look))), SECOND) else {
        panic!("not asked")
    };
    assert_eq!(question.order.text(), "-ping_rtt");
}

#[test]
fn selection_stays_with_its_tunnel_wherever_it_goes() {
    let mut model = model();
    let _ = press(&mut model, Key::Down);
    assert_eq!(selected(&model), "/chat/b");
    let mut turned = tunnels();
    turned.reverse();
    turned.insert(0, sample::tunnel(9, "/other"));
    see(&mut model, sample::look(sample::summary(7, 101), &turned, None));
    assert_eq!((model.selected, selected(&model)), (2, "/chat/b"));
    // It ends: another one is at its place.
    turned.remove(2);
    see(&mut model, sample::look(sample::summary(7, 102), &turned, None));
    assert_eq!((model.selected, selected(&model)), (2, "/chat/a"));
    see(&mut model, sample::look(sample::summary(7, 103), &[], None));
    assert_eq!(model.selected, 0);
    for key in [Key::Down, Key::End, Key::PageDown, Key::Up, Key::Home, Key::Enter, Key::Char('c')]
    {
        let _ = press(&mut model, key);
    }
    assert_eq!((model.selected, model.prompt), (0, None));
}

#[test]
fn selected_row_is_in_sight_and_no_row_is_wasted() {
    let many: Vec<_> = (0..50).map(|number| sample::tunnel(number, "/x")).collect();
    let mut model = model_with(&many);
    let mut sight = |key, rows| {
        let _ = press(&mut model, key);
        model.keep_in_sight(rows);
        (model.first, model.selected)
    };
    assert_eq!(sight(Key::End, 10), (40, 49));
    assert_eq!(sight(Key::Up, 10), (40, 48));
    assert_eq!(sight(Key::PageUp, 10), (38, 38));
    assert_eq!(sight(Key::Home, 10), (0, 0));
    assert_eq!(sight(Key::Down, 10), (0, 1));
    assert_eq!(sight(Key::PageDown, 10), (2, 11));
    // The terminal becomes lower, then higher.
    assert_eq!(sight(Key::Left, 3), (9, 11));
    assert_eq!(sight(Key::End, 1), (49, 49));
    assert_eq!(sight(Key::Left, 0), (49, 49));
    assert_eq!(sight(Key::Left, 60), (0, 49));
}

#[test]
fn filter_is_typed_and_one_that_elbows_refuses_is_taken_back() {
    let mut model = model();
    let _ = press(&mut model, Key::Char('/'));
    type_text(&mut model, "x");
    let _ = press(&mut model, Key::Backspace);
    type_text(&mut model, "chat idle=q");
    // No order to a terminal can be typed or pasted.
    type_text(&mut model, "\u{9b}\u{202e}");
    let Output::Ask(asked) = press(&mut model, Key::Enter) else { panic!("not asked") };
    assert_eq!(asked.target(), "/api/tunnels?path=chat&idle=q&limit=100");
    let why = Text::clean("idle=\"q\": give a time with its unit, as 500ms, 50s or 2h");
    let _ = model.update(Input::Looked(Err(Trouble::Refused(why.clone(), 400))), model.now);
    assert!(model.question.filters.is_empty());
    assert_eq!(model.note.as_ref().unwrap().text, why.as_str());
    assert_eq!(model.trouble(), None);
    let _ = press(&mut model, Key::Char('/'));
    type_text(&mut model, "a b");
    assert_eq!(press(&mut model, Key::Enter), Output::Nothing);
    assert!(model.note.as_ref().unwrap().text.contains("path is given twice"));
    for _ in 0..500 {
        type_text(&mut model, "y");
    }
    let Some(Prompt::Filter(line)) = &model.prompt else { panic!("no prompt") };
    assert_eq!(line.len(), 200);
    let _ = press(&mut model, Key::Clear);
    assert_eq!(model.prompt, Some(Prompt::Filter(String::new())));
    let _ = press(&mut model, Key::Escape);
    assert_eq!(model.prompt, None);
    assert!(model.question.filters.is_empty());
}

#[test]
fn tunnel_is_closed_after_a_yes_and_it_is_the_one_that_was_chosen() {
    let mut model = model();
    let _ = press(&mut model, Key::Down);
    let _ = press(&mut model, Key::Char('c'));
    // The list turns meanwhile.
    let mut turned = tunnels();
    turned.reverse();
    see(&mut model, sample::look(sample::summary(7, 101), &turned, None));
    type_text(&mut model, "1005");
    assert_eq!(press(&mut model, Key::Enter), Output::Nothing);
    assert!(model.note.as_ref().unwrap().text.starts_with("\"1005\": a Close may have"));
    let _ = press(&mut model, Key::Clear);
    type_text(&mut model, "4000");
    assert!(model.note.is_some());
    let _ = press(&mut model, Key::Enter);
    // It is right now.
    assert!(model.note.is_none());
    type_text(&mut model, &"ü".repeat(62));
    assert_eq!(press(&mut model, Key::Enter), Output::Nothing);
    assert!(model.note.as_ref().unwrap().text.contains("123 bytes"));
    let _ = press(&mut model, Key::Clear);
    type_text(&mut model, "go home");
    let _ = press(&mut model, Key::Enter);
    assert_eq!(
        model.prompt.as_ref().unwrap().text(),
        "close 203.0.113.2:51234 /chat/b with 4000 \"go home\"? y or n"
    );
    let Output::Close(close) = press(&mut model, Key::Char('y')) else { panic!("not closed") };
    assert_eq!(close.target(), "/api/tunnels/0-2-00000000000000ab/close?code=4000&reason=go+home");
    let _ = model.update(Input::Closed(close.clone(), Ok(())), model.now);
    assert_eq!(model.note.as_ref().unwrap().text, "203.0.113.2:51234 /chat/b gets its Close");
    let ended = Trouble::Refused(Text::clean("no tunnel has this id"), 404);
    let _ = model.update(Input::Closed(close, Err(ended)), model.now);
    assert!(model.note.as_ref().unwrap().is_bad);
}

#[test]
fn whatever_is_no_yes_closes_nothing() {
    for key in [Key::Enter, Key::Escape, Key::Char('n'), Key::Char('Y'), Key::Char(' ')] {
        let mut model = model();
        for key in [Key::Char('c'), Key::Enter, Key::Enter, key] {
            assert_eq!(press(&mut model, key), Output::Nothing, "{key:?}");
        }
        assert_eq!(model.prompt, None);
        assert_eq!(model.note.as_ref().unwrap().text, "203.0.113.1:51234 /chat/a stays open");
    }
    let look = sample::look(sample::summary(7, 100), &tunnels(), None);
    let mut without = Model::new(Text::clean("9145"), false, question(), look);
    let _ = press(&mut without, Key::Char('c'));
    assert_eq!(without.prompt, None);
    assert!(without.note.as_ref().unwrap().text.contains("ADMIN_TOKEN is not set"));
}

fn said(model: &Model) -> &str {
    &model.note.as_ref().unwrap().text
}

#[test]
fn tunnel_that_is_no_websocket_ends_without_a_code_and_a_reason() {
    let mut other = sample::tunnel(1, "/vnc");
    other["protocol"] = json!("other");
    let mut model = model_with(&[other]);
    let _ = press(&mut model, Key::Char('c'));
    assert_eq!(
        model.prompt.as_ref().unwrap().text(),
        "end 203.0.113.1:51234 /vnc, which is no WebSocket, without a Close? y or n"
    );
    let Output::Close(close) = press(&mut model, Key::Char('y')) else { panic!("not closed") };
    assert_eq!(close.target(), "/api/tunnels/0-1-00000000000000ab/close?");
    let _ = model.update(Input::Closed(close, Ok(())), model.now);
    assert_eq!(said(&model), "203.0.113.1:51234 /vnc ends, without a Close");
}

#[test]
fn what_was_wrong_is_told_no_longer_than_it_is() {
    let mut model = model();
    for begins in ['c', '/'] {
        let _ = press(&mut model, Key::Char('t'));
        let _ = press(&mut model, Key::Char('c'));
        assert_eq!(said(&model), "choose a tunnel first");
        let _ = press(&mut model, Key::Escape);
        let _ = press(&mut model, Key::Char(begins));
        assert!(model.prompt.is_some() && model.note.is_none(), "{begins}");
        let _ = press(&mut model, Key::Escape);
    }
    let _ = press(&mut model, Key::Char('/'));
    type_text(&mut model, "a b");
    let _ = press(&mut model, Key::Enter);
    assert!(said(&model).contains("path is given twice"));
    let _ = press(&mut model, Key::Escape);
    assert!(model.note.is_none());
}

#[test]
fn tunnel_that_ends_is_not_said_to_stay_open_and_is_not_closed_twice() {
    let mut closing = model();
    for key in [Key::Char('c'), Key::Enter, Key::Enter] {
        let _ = press(&mut closing, key);
    }
    let Output::Close(close) = press(&mut closing, Key::Char('y')) else { panic!("not closed") };
    // Somebody asks again before the answer is there.
    let _ = press(&mut closing, Key::Char('c'));
    let _ = closing.update(Input::Closed(close, Ok(())), closing.now);
    let _ = press(&mut closing, Key::Escape);
    assert_eq!(said(&closing), "203.0.113.1:51234 /chat/a is being closed already");
    let _ = press(&mut closing, Key::Char('c'));
    assert_eq!(closing.prompt, None);
    assert!(closing.note.as_ref().unwrap().is_bad);
    // Somebody else closed it.
    let mut ended = model();
    let _ = press(&mut ended, Key::Char('c'));
    see(&mut ended, sample::look(sample::summary(7, 101), &tunnels()[1..], None));
    let _ = press(&mut ended, Key::Escape);
    assert_eq!(said(&ended), "203.0.113.1:51234 /chat/a was left as it is");
}

/// What is no elbows can send any id: nothing of it gets into a request.
#[test]
fn id_that_is_none_is_never_asked_for() {
    for id in ["../log", "a b", "", "0-1?x", "é", &"0".repeat(65)] {
        let mut hostile = sample::tunnel(1, "/x");
        hostile["id"] = json!(id);
        let mut model = model_with(&[hostile]);
        let _ = press(&mut model, Key::Char('c'));
        assert_eq!(model.prompt, None, "{id}");
        let Output::Ask(asked) = press(&mut model, Key::Enter) else { panic!("not asked") };
        assert_eq!(asked.one, None, "{id}");
    }
}

#[test]
fn one_tunnel_is_followed_to_its_end_and_into_another_process() {
    let mut model = model();
    let Output::Ask(asked) = press(&mut model, Key::Enter) else { panic!("not asked") };
    assert_eq!(asked.one.as_deref(), Some("0-1-00000000000000ab"));
    let mut one = sample::tunnel(1, "/chat/a");
    one["messages_from_client"] = json!(15);
    let now = SECOND;
    let look = sample::look(sample::summary(7, 101), &tunnels(), Some(one));
    let _ = model.update(Input::Looked(Ok(Box::new(look))), now);
    let Screen::One { row, has_ended: false } = &model.screen else { panic!("{:?}", model.screen) };
    assert_eq!(row.messages[0], Some(5.0));
    // Another process has it under another id.
    let mut moved = tunnels();
    moved[0]["id"] = json!("1-5-00000000000000cd");
    let mut summary = sample::summary(8, 1);
    summary["handed_in"] = json!(3);
    see(&mut model, sample::look(summary.clone(), &moved, None));
    assert_eq!(
        model.note.as_ref().unwrap().text,
        "pid 8 answers now and took over 3 tunnels; before, it was pid 7"
    );
    assert_eq!(model.question.one.as_deref(), Some("1-5-00000000000000cd"));
    assert!(matches!(model.screen, Screen::One { has_ended: false, .. }));
    assert_eq!((model.rates.opened, model.rows[0].messages[0]), (None, Some(0.0)));
    see(&mut model, sample::look(summary, &moved[1..], None));
    assert!(matches!(model.screen, Screen::One { has_ended: true, .. }));
    let _ = press(&mut model, Key::Char('c'));
    assert_eq!(model.prompt, None);
    assert_eq!(said(&model), "it has ended: there is nothing to close any more");
    let _ = press(&mut model, Key::Escape);
    assert!(matches!(model.screen, Screen::Tunnels));
    assert_eq!(model.question.one, None);
}

#[test]
fn trouble_is_told_for_as_long_as_it_lasts_and_it_goes_on_by_itself() {
    let mut model = model();
    let gone = Trouble::Unreachable {
        place: Text::clean("127.0.0.1:9145"),
        why: Text::clean("connection refused"),
    };
    for seconds in 0..3 {
        assert_eq!(fail(&mut model, gone.clone()), Output::Nothing);
        let told = format!(
            "no answer from 127.0.0.1:9145: connection refused; asking again for {seconds} s"
        );
        assert_eq!(model.trouble(), Some(told));
    }
    assert_eq!(model.rows.len(), 3);
    see(&mut model, sample::look(sample::summary(9, 1), &[], None));
    assert_eq!(model.trouble(), None);
    assert_eq!(model.note.as_ref().unwrap().text, "pid 9 answers now; before, it was pid 7");
    // A word stays for a while.
    for _ in 0..9 {
        see(&mut model, sample::look(sample::summary(9, 1), &[], None));
    }
    assert!(model.note.is_none());
}

#[test]
fn pause_asks_nothing_until_it_is_over() {
    let mut model = model();
    let _ = press(&mut model, Key::Char(' '));
    assert_eq!(model.update(Input::Second, SECOND), Output::Nothing);
    let _ = press(&mut model, Key::Char('p'));
    assert_eq!(model.update(Input::Second, SECOND), Output::Ask(question()));
    assert_eq!(press(&mut model, Key::Char('q')), Output::Quit);
    let _ = press(&mut model, Key::Char('/'));
    assert_eq!(press(&mut model, Key::Char('q')), Output::Nothing);
    assert_eq!(press(&mut model, Key::Interrupt), Output::Quit);
}
