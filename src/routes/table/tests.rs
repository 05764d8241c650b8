//! The table against the plain way: one route after the other, and the closest that fits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::super::explain::judge;
use super::*;

fn exact(host: &str) -> HostPattern {
    HostPattern::Exact(String::from(host))
}

fn below(domain: &str) -> HostPattern {
    HostPattern::Below(String::from(domain))
}

fn of(hosts: &[HostPattern], path: PathPattern) -> Conditions {
    Conditions { hosts: hosts.to_vec(), path, ..Conditions::default() }
}

fn prefix(path: &str) -> PathPattern {
    PathPattern::Prefix(String::from(path))
}

fn input<'a>(host: &'a str, path: &'a str) -> RouteInput<'a> {
    RouteInput { host: host.as_bytes(), path: path.as_bytes(), fields: &[], is_upgrade: false }
}

/// The closest that fits, and of those that are alike the first.
fn plainly(routes: &[Conditions], input: &RouteInput<'_>) -> Option<usize> {
    let ranks = routes
        .iter()
        .enumerate()
        .filter_map(|(place, route)| Some((judge(route, input).ok()?, place)));
    let best = ranks.max_by_key(|(rank, place)| (*rank, std::cmp::Reverse(*place)));
    best.map(|(_, place)| place)
}

#[test]
fn closest_host_comes_first_and_then_closest_path() {
    let routes = [
        of(&[], PathPattern::Any),
        of(&[below("example.com")], PathPattern::Any),
        of(&[below("eu.example.com")], prefix("/chat")),
        of(&[exact("chat.eu.example.com")], prefix("/chat/admin")),
        of(&[exact("chat.eu.example.com")], PathPattern::Exact(String::from("/chat"))),
        of(&[], prefix("/")),
    ];
    let table = Table::new(&routes);
    let taken = |host, path| table.find(&input(host, path)).unwrap();
    assert_eq!(taken("chat.eu.example.com", "/chat/admin/x"), Some(3));
    assert_eq!(taken("CHAT.eu.Example.com", "/chat"), Some(4));
    // The host that fits best has no route for it, and the next one has.
    assert_eq!(taken("chat.eu.example.com", "/chat/x"), Some(2));
    assert_eq!(taken("chat.eu.example.com", "/other"), Some(1));
    assert_eq!(taken("eu.example.com", "/chat"), Some(1));
    assert_eq!(taken("example.com", "/chat"), Some(5));
    assert_eq!(taken("badexample.com", "/chat"), Some(5));
    assert_eq!(taken(".example.com", "/chat"), Some(5));
    assert_eq!(taken("", "*"), Some(0));
    assert_eq!(taken(&"a".repeat(300), "/"), Some(5));
}

#[test]
fn prefix_ends_where_a_segment_does() {
    let routes = [of(&[], prefix("/a")), of(&[], prefix("/a-b/c"))];
    let table = Table::new(&routes);
    let taken = |path| table.find(&input("h", path)).unwrap();
    for path in ["/a", "/a/", "/a/z", "/a/b/c"] {
        assert_eq!(taken(path), Some(0), "{path}");
    }
    for path in ["/", "/ab", "/a-b", "/a-b/cd", "/A"] {
        assert_eq!(taken(path), None, "{path}");
    }
    assert_eq!(taken("/a-b/c/d"), Some(1));
}

#[test]
fn more_conditions_come_first_and_two_values_are_none() {
    let header = |value: &str| (String::from("x-tenant"), String::from(value));
    let routes = [
        Conditions { upgrade: Some(true), ..Conditions::default() },
        Conditions { headers: vec![header("blue")], ..Conditions::default() },
        Conditions { headers: vec![header("blue")], upgrade: Some(false), ..Conditions::default() },
    ];
    let table = Table::new(&routes);
    let field = |value| Field { name: b"X-Tenant", value };
    let taken = |fields: &[Field<'_>], is_upgrade| {
        table.find(&RouteInput { fields, is_upgrade, ..input("h", "/") }).unwrap()
    };
    assert_eq!(taken(&[field(b"blue")], true), Some(1));
    assert_eq!(taken(&[field(b"blue")], false), Some(2));
    assert_eq!(taken(&[field(b"red")], true), Some(0));
    assert_eq!(taken(&[field(b"blue"), field(b"red")], true), Some(0));
    assert_eq!(taken(&[field(b"red")], false), None);
}

#[test]
fn path_that_leads_elsewhere_once_it_is_resolved_is_refused() {
    let routes = [of(&[], prefix("/public")), of(&[], prefix("/admin"))];
    let table = Table::new(&routes);
    let find = |path| table.find(&input("h", path));
    for path in [
        "/public/../admin/x",
        "/public/%2e%2e/admin",
        "//admin",
        "/%61dmin",
        "/public%2f..%2fadmin",
        "/x/../admin",
    ] {
        assert_eq!(find(path), Err(Unclear), "{path}");
    }
    // Whoever reads it, it is the same route.
    for path in ["/public//a", "/public/a%20b", "/public/./a", "/public/a/../b"] {
        assert_eq!(find(path), Ok(Some(0)), "{path}");
    }
    // Where nothing depends on paths, they pass as they are.
    let table = Table::new(&[of(&[exact("h")], PathPattern::Any)]);
    assert_eq!(table.find(&input("h", "/public/../admin/%zz")), Ok(Some(0)));
}

fn hosts() -> impl Strategy<Value = HostPattern> {
    let name = prop::sample::select(vec!["a.b", "b", "c.a.b", "x.a.b", "a.bb", "aa.b", "b.a.b"]);
    (name, any::<bool>())
        .prop_map(|(name, is_below)| if is_below { below(name) } else { exact(name) })
}

fn paths() -> impl Strategy<Value = PathPattern> {
    let path =
        prop::sample::select(vec!["/", "/a", "/a/b", "/a-b", "/a/b/c", "/ab", "/a/", "/b", "/a0"]);
    prop_oneof![
        Just(PathPattern::Any),
        path.clone().prop_map(|path| PathPattern::Exact(String::from(path))),
        path.prop_filter("no slash at its end", |path| *path == "/" || !path.ends_with('/'))
            .prop_map(prefix),
    ]
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let header = (prop::sample::select(vec!["x", "y"]), prop::sample::select(vec!["1", "2"]))
        .prop_map(|(name, value)| (String::from(name), String::from(value)));
    let headers = prop::collection::vec(header, 0..3).prop_map(|mut headers| {
        headers.sort();
        headers.dedup_by(|one, other| one.0 == other.0);
        headers
    });
    (prop::collection::vec(hosts(), 0..3), paths(), headers, any::<Option<bool>>())
        .prop_map(|(hosts, path, headers, upgrade)| Conditions { hosts, path, headers, upgrade })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn table_finds_what_is_found_plainly(
        routes in prop::collection::vec(conditions(), 0..40),
        host in prop::sample::select(vec!["a.b", "A.B", "b", "c.a.b", "d.c.a.b", "x.aa.b", "b.a.b", "", ".b", "bb"]),
        path in prop::sample::select(vec!["/", "/a", "/a/b", "/a/b/c/d", "/a-b", "/a-b/c", "/ab", "/a/", "/b/x", "/a0/b", "*"]),
        fields in prop::collection::vec((prop::sample::select(vec!["x", "Y"]), prop::sample::select(vec!["1", "2"])), 0..4),
        is_upgrade: bool,
    ) {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| Field { name: name.as_bytes(), value: value.as_bytes() }).collect();
        let input = RouteInput { fields: &fields, is_upgrade, ..input(host, path) };
        prop_assert_eq!(Table::new(&routes).find(&input), Ok(plainly(&routes, &input)));
    }
}
