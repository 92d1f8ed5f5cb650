//! Terms that hold, and those that do not.

use proptest::prelude::*;

use super::*;

/// When keys of these tests are made.
const NOW_MS: u64 = 1_000_000;

fn named(name: &str) -> Draft {
    Draft { name: name.to_owned(), ..Draft::default() }
}

fn check(change: impl FnOnce(&mut Draft)) -> Result<Terms, BadTerms> {
    let mut draft = named("key");
    change(&mut draft);
    Terms::check(&draft, NOW_MS)
}

fn texts(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|entry| (*entry).to_owned()).collect()
}

fn from(addresses: &[&str]) -> Result<Terms, BadTerms> {
    check(|draft| draft.addresses = texts(addresses))
}

fn allows(terms: &Terms, address: &str) -> bool {
    terms.allows_address(address.parse().unwrap())
}

fn budget(cap: u64, window: &str, zone: Option<&str>) -> BudgetDraft {
    let zone = zone.map(str::to_owned);
    BudgetDraft { cap: NanoUsd::from_nanos(cap), window: window.to_owned(), zone }
}

#[test]
fn a_name_is_short_and_plain() {
    let longest = "n".repeat(NAME_CHARS_MAX);
    for name in ["a", "Team A-1_x.y@z", " ci ", &longest] {
        assert_eq!(Terms::check(&named(name), NOW_MS).unwrap().name(), name.trim());
        assert!(check(|draft| draft.team = Some(name.to_owned())).is_ok());
    }
    let too_long = "n".repeat(NAME_CHARS_MAX + 1);
    for name in ["", " ", "a\nb", "a\tb", "ä", "a/b", "a\"b", "a\u{200b}", &too_long] {
        let refused = BadTerms::Name { field: "name" };
        assert_eq!(Terms::check(&named(name), NOW_MS), Err(refused), "{name:?}");
        let refused = BadTerms::Name { field: "team" };
        assert_eq!(check(|draft| draft.team = Some(name.to_owned())), Err(refused), "{name:?}");
    }
}

/// An empty list allows all. A list that somebody meant to fill never does.
#[test]
fn a_blank_entry_is_an_error_and_never_all() {
    for blank in ["", " ", "\t", "\n", "\u{a0}"] {
        for (list, entry) in [(vec![blank], 1), (vec!["10.0.0.1", blank], 2), (vec![blank, "10.0.0.1"], 1)] {
            let refused = check(|draft| draft.models = texts(&list));
            assert_eq!(refused, Err(BadTerms::Blank { list: "models", entry }), "{list:?}");
            assert_eq!(from(&list), Err(BadTerms::Blank { list: "addresses", entry }), "{list:?}");
        }
    }
    let all = check(|_| {}).unwrap();
    assert!(all.allows_model("any") && allows(&all, "1.2.3.4") && allows(&all, "::1"), "the control");
}

#[test]
fn models_are_those_of_the_patterns() {
    let terms = check(|draft| draft.models = texts(&[" gpt-* ", "claude"])).unwrap();
    for (model, allowed) in [("gpt-4", true), ("claude", true), ("claude-2", false), ("", false)] {
        assert_eq!(terms.allows_model(model), allowed, "{model}");
    }
    let long = "m".repeat(PATTERN_BYTES_MAX);
    assert!(check(|draft| draft.models = vec![long.clone()]).is_ok());
    assert_eq!(check(|draft| draft.models = vec![long + "m"]), Err(BadTerms::Pattern { entry: 1 }));
}

#[test]
fn addresses_are_those_of_the_ranges() {
    let terms = from(&[" 10.0.0.0/8 ", "192.168.1.7", "2001:db8::/32", "192.0.2.77/24"]).unwrap();
    let table = [
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("9.255.255.255", false),
        ("192.168.1.7", true),
        ("192.168.1.8", false),
        ("192.0.2.0", true),
        ("2001:db8::", true),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
        ("2001:db9::", false),
        ("::ffff:10.1.2.3", true),
        ("::ffff:11.1.2.3", false),
        // Not mapped: another address.
        ("::10.1.2.3", false),
    ];
    for (address, allowed) in table {
        assert_eq!(allows(&terms, address), allowed, "{address}");
    }
    for text in ["10.0.0.0/33", "10.0.0/8", "10.0.0.1/", "/8", "all", "*", "::/129", "10.0.0.1,10.0.0.2"] {
        let refused = BadTerms::Address { entry: 1, text: text.to_owned() };
        assert_eq!(from(&[text]), Err(refused), "{text}");
    }
}

#[test]
fn a_range_of_mapped_addresses_is_one_of_ipv4() {
    let terms = from(&["::ffff:10.0.0.0/104", "::ffff:192.168.1.7"]).unwrap();
    assert_eq!(terms.draft().addresses, ["10.0.0.0/8", "192.168.1.7/32"]);
    for address in ["10.1.2.3", "::ffff:10.1.2.3", "192.168.1.7", "::ffff:192.168.1.7"] {
        assert!(allows(&terms, address), "{address}");
    }
    let every = from(&["::ffff:0:0/96"]).unwrap();
    assert!(allows(&every, "1.2.3.4") && !allows(&every, "::1"));
    let six = from(&["::/0"]).unwrap();
    assert!(allows(&six, "::1") && !allows(&six, "1.2.3.4") && !allows(&six, "::ffff:1.2.3.4"));
}

#[test]
fn lists_are_bounded() {
    let many = |count: usize| vec!["10.0.0.1".to_owned(); count];
    for count in [ENTRIES_MAX, ENTRIES_MAX + 1] {
        let fits = count == ENTRIES_MAX;
        assert_eq!(check(|draft| draft.models = many(count)).is_ok(), fits);
        assert_eq!(check(|draft| draft.addresses = many(count)).is_ok(), fits);
    }
    let refused = check(|draft| draft.budgets = vec![budget(1, "day", None); ENTRIES_MAX + 1]);
    assert_eq!(refused, Err(BadTerms::TooMany { list: "budgets" }));
}

#[test]
fn a_limit_is_one_at_least() {
    let set = |requests, tokens, concurrent| {
        check(|draft| {
            (draft.requests_per_minute, draft.tokens_per_minute) = (requests, tokens);
            draft.concurrent = concurrent;
        })
    };
    for (refused, limit) in [
        (set(Some(0), Some(1), Some(1)), "requests_per_minute"),
        (set(Some(1), Some(0), Some(1)), "tokens_per_minute"),
        (set(Some(1), Some(1), Some(0)), "concurrent"),
    ] {
        assert_eq!(refused, Err(BadTerms::Zero { limit }));
    }
    let limits = set(Some(1), Some(u64::MAX), None).unwrap().limits();
    assert_eq!(limits.requests_per_minute, NonZeroU64::new(1));
    assert_eq!(limits.tokens_per_minute, NonZeroU64::new(u64::MAX));
    assert_eq!(limits.concurrent, None);
}

#[test]
fn a_key_expires_after_it_is_made_and_from_that_instant_on() {
    let until = |expires_ms| check(|draft| draft.expires_ms = Some(expires_ms));
    for expires_ms in [0, NOW_MS - 1, NOW_MS] {
        assert_eq!(until(expires_ms), Err(BadTerms::Expired), "{expires_ms}");
    }
    let terms = until(NOW_MS + 1).unwrap();
    assert!(!terms.has_expired(NOW_MS) && terms.has_expired(NOW_MS + 1));
    assert!(!check(|_| {}).unwrap().has_expired(u64::MAX));
}

#[test]
fn a_budget_has_a_window_of_its_own() {
    let with = |budgets: Vec<BudgetDraft>| check(|draft| draft.budgets = budgets);
    let helsinki = || Window::Day("Europe/Helsinki".parse().unwrap());
    let terms = with(vec![
        budget(1, "day", Some(" europe/helsinki ")),
        budget(2, "day", None),
        budget(3, "month", Some("UTC")),
        budget(4, "total", None),
    ]);
    let terms = terms.unwrap();
    let utc = || "UTC".parse().unwrap();
    let windows = [helsinki(), Window::Day(utc()), Window::Month(utc()), Window::Total];
    let found: Vec<(u64, Window)> =
        terms.budgets().iter().map(|budget| (budget.cap.nanos(), budget.window.clone())).collect();
    assert_eq!(found, (1..).zip(windows).collect::<Vec<_>>());
    for (budget, refused) in [
        (budget(1_000_000_000_000_000_001, "day", None), BadTerms::Cap { entry: 1 }),
        (budget(1, "week", None), BadTerms::Window { entry: 1, text: "week".to_owned() }),
        (budget(1, "", None), BadTerms::Window { entry: 1, text: String::new() }),
        (budget(1, "day", Some("")), BadTerms::Zone { entry: 1, text: String::new() }),
        (budget(1, "month", Some("Mars")), BadTerms::Zone { entry: 1, text: "Mars".to_owned() }),
        (budget(1, "total", Some("UTC")), BadTerms::Zone { entry: 1, text: "UTC".to_owned() }),
    ] {
        assert_eq!(with(vec![budget]), Err(refused));
    }
    let twice = vec![budget(1, "day", None), budget(2, "day", Some("UTC"))];
    assert_eq!(with(twice), Err(BadTerms::Twice { entry: 2 }));
}

#[test]
fn json_is_read_whole_or_not_at_all() {
    let read = |json: &str| serde_json::from_str::<Draft>(json);
    let draft = read(r#"{"name":"k","budgets":[{"cap":"0.05","window":"day"}]}"#).unwrap();
    assert_eq!(draft.budgets, [budget(50_000_000, "day", None)]);
    assert_eq!((draft.models.len(), draft.expires_ms), (0, None));
    for bad in [
        "{}",
        r#"{"name":"k","model":["gpt"]}"#,
        r#"{"name":"k","models":"gpt"}"#,
        r#"{"name":"k","models":null}"#,
        r#"{"name":"k","concurrent":-1}"#,
        r#"{"name":"k","budgets":[{"cap":0.05,"window":"day"}]}"#,
        r#"{"name":"k","budgets":[{"cap":"-1","window":"day"}]}"#,
        r#"{"name":"k","budgets":[{"window":"day"}]}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

fn drafts() -> impl Strategy<Value = Draft> {
    let network = (any::<IpAddr>(), 0_u8..=128).prop_map(|(address, bits)| format!("{address}/{bits}"));
    let address = prop_oneof![network, any::<IpAddr>().prop_map(|address| address.to_string())];
    let zone = prop::option::of(prop::sample::select(vec!["UTC", "Asia/Tokyo", "nowhere"]));
    let window = prop::sample::select(vec!["day", "month", "total"]);
    let budget = (any::<u64>(), window, zone).prop_map(|(cap, window, zone)| budget(cap, window, zone));
    let lists = (
        prop::collection::vec("[a-z*]{0,6}", 0..4),
        prop::collection::vec(address, 0..4),
        prop::collection::vec(budget, 0..3),
    );
    let limits = (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u32>>());
    ("[a-zA-Z @.-]{1,8}", prop::option::of("[a-z]{1,3}"), lists, any::<Option<u64>>(), limits).prop_map(
        |(name, team, (models, addresses, budgets), expires_ms, limits)| {
            let (requests_per_minute, tokens_per_minute, concurrent) = limits;
            Draft {
                name,
                team,
                models,
                addresses,
                expires_ms,
                requests_per_minute,
                tokens_per_minute,
                concurrent,
                budgets,
            }
        },
    )
}

proptest! {
    /// What is checked reads back the same, also through JSON, and checks again.
    #[test]
    fn terms_outlive_the_database(draft in drafts()) {
        if let Ok(terms) = Terms::check(&draft, NOW_MS) {
            let json = serde_json::to_string(&terms.draft()).unwrap();
            let again: Draft = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(Terms::check(&again, NOW_MS), Ok(terms));
        }
    }

    /// An IPv4 address is let in or not, whichever way it is written.
    #[test]
    fn an_address_is_one_whichever_way_it_is_written(
        ranges in prop::collection::vec((any::<std::net::Ipv4Addr>(), 0_u8..=32, any::<bool>()), 1..4),
        address in any::<std::net::Ipv4Addr>(),
    ) {
        let written = ranges.iter().map(|(range, bits, mapped)| match mapped {
            true => format!("{}/{}", range.to_ipv6_mapped(), bits + 96),
            false => format!("{range}/{bits}"),
        });
        let terms = check(|draft| draft.addresses = written.collect()).unwrap();
        let mask = |bits: u8| u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let expected = ranges.iter().any(|(range, bits, _)| (range.to_bits() ^ address.to_bits()) & mask(*bits) == 0);
        prop_assert_eq!(terms.allows_address(address.into()), expected);
        prop_assert_eq!(terms.allows_address(address.to_ipv6_mapped().into()), expected);
    }
}
