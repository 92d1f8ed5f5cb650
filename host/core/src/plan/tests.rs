use super::*;

fn declared() -> Declared {
    let route = |method, path| Route::parse(1, method, path).unwrap();
    Declared {
        routes: vec![route("POST", "/chat/completions"), route("GET", "/models/{model}:count/x")],
        headers: vec!["content-type".into()],
        slots: BTreeMap::from([("api-key".into(), true)]),
    }
}

fn proposal() -> Proposal {
    Proposal {
        method: "POST".into(),
        path: "/chat/completions".into(),
        query: Vec::new(),
        headers: vec![("content-type".into(), "application/json".into())],
        auth: Credential::Header(slotted("authorization", "api-key")),
        body: BodyPlan::Passthrough,
        limit_at: None,
        framing: Framing::Whole,
        response: ResponsePlan::SameWire,
        carry: Vec::new(),
    }
}

fn slotted(name: &str, slot: &str) -> Slotted {
    Slotted { name: name.into(), prefix: "Bearer ".into(), slot: slot.into(), suffix: String::new() }
}

fn breach(change: impl FnOnce(&mut Proposal)) -> Option<PlanBreach> {
    let mut proposal = proposal();
    change(&mut proposal);
    CallPlan::check(proposal, 1, &declared()).err()
}

#[test]
fn what_is_declared_is_allowed() {
    assert_eq!(breach(|_| ()), None);
    let model =
        breach(|plan| (plan.method, plan.path) = ("GET".into(), "/models/gpt-4%C3%A9:count/x".into()));
    assert_eq!(model, None);
}

#[test]
fn a_path_that_may_lead_elsewhere_is_refused() {
    let table = [
        ("/chat/../admin", PathFault::DotSegment),
        ("/chat/%2e%2e/admin", PathFault::DotSegment),
        ("/chat/%2E./admin", PathFault::DotSegment),
        ("/./chat", PathFault::DotSegment),
        ("https://evil.example/chat/completions", PathFault::NotRooted),
        ("//evil.example/chat/completions", PathFault::NotRooted),
        ("chat/completions", PathFault::NotRooted),
        ("", PathFault::NotRooted),
        ("/chat//completions", PathFault::EmptySegment),
        ("/", PathFault::EmptySegment),
        ("/chat/", PathFault::EmptySegment),
        ("/chat/completions?x=1", PathFault::Character),
        ("/chat/completions#x", PathFault::Character),
        ("/chat%2fcompletions", PathFault::Character),
        ("/chat%5ccompletions", PathFault::Character),
        ("/chat/%252e%252e", PathFault::Character),
        ("/chat\\completions", PathFault::Character),
        ("/chat/comple tions", PathFault::Character),
        ("/chat/%00", PathFault::Character),
        ("/chat/é", PathFault::Character),
        ("/chat/%zz", PathFault::Escape),
        ("/chat/%2", PathFault::Escape),
    ];
    for (path, fault) in table {
        let expected = Some(PlanBreach::Path { path: path.into(), fault });
        assert_eq!(breach(|plan| plan.path = path.into()), expected, "{path}");
    }
}

#[test]
fn a_call_stays_on_a_declared_route() {
    for (method, path) in [
        ("GET", "/chat/completions"),
        ("POST", "/chat"),
        ("POST", "/chat/completions/x"),
        ("POST", "/Chat/completions"),
        ("GET", "/models/:count/x"),
        ("GET", "/models/a/b:count/x"),
    ] {
        let found = breach(|plan| (plan.method, plan.path) = (method.into(), path.into()));
        assert!(matches!(found, Some(PlanBreach::Route { .. })), "{method} {path}: {found:?}");
    }
    let elsewhere = CallPlan::check(proposal(), 2, &declared());
    assert!(matches!(elsewhere, Err(PlanBreach::Route { .. })), "a route of another endpoint");
}

#[test]
fn a_header_is_declared_well_formed_and_not_the_hosts() {
    let with = |name: &str, value: &str| breach(|plan| plan.headers = vec![(name.into(), value.into())]);
    assert_eq!(with("x-other", "1"), Some(PlanBreach::HeaderUndeclared("x-other".into())));
    for (name, value) in [
        ("content-type", "a\rb"),
        ("content-type", "a\nb"),
        ("content-type", "a\0"),
        ("Content-Type", "a"),
        ("", "a"),
        ("a b", "c"),
    ] {
        assert_eq!(with(name, value), Some(PlanBreach::HeaderMalformed(name.into())), "{name:?} {value:?}");
    }
    for name in ["authorization", "host", "content-length", "cookie", "x-api-key"] {
        assert_eq!(with(name, "1"), Some(PlanBreach::HeaderReserved(name.into())));
        assert_eq!(check_declared_header(name), Err(PlanBreach::HeaderReserved(name.into())));
    }
    assert_eq!(with("content-type", &"a".repeat(VALUE_BYTES_MAX + 1)), Some(PlanBreach::TooLarge));
    let many = breach(|plan| plan.headers = vec![("content-type".into(), "a".into()); HEADERS_MAX + 1]);
    assert_eq!(many, Some(PlanBreach::TooLarge));
}

#[test]
fn a_secret_goes_to_a_declared_slot_and_not_into_framing() {
    let auth = |auth| breach(|plan| plan.auth = auth);
    assert_eq!(auth(Credential::Header(slotted("x-key", "other"))), Some(PlanBreach::Slot("other".into())));
    assert_eq!(auth(Credential::Query(slotted("key", "other"))), Some(PlanBreach::Slot("other".into())));
    assert_eq!(
        auth(Credential::Header(slotted("host", "api-key"))),
        Some(PlanBreach::HeaderReserved("host".into()))
    );
    let split = Slotted { prefix: "a\r\nb".into(), ..slotted("x-key", "api-key") };
    assert_eq!(auth(Credential::Header(split)), Some(PlanBreach::HeaderMalformed("x-key".into())));
}

#[test]
fn a_route_that_cannot_be_kept_is_not_declared() {
    assert!(matches!(Route::parse(1, "CONNECT", "/x"), Err(RouteError::Method(_))));
    assert!(matches!(Route::parse(1, "GET", "/a/../b"), Err(RouteError::Path { .. })));
    for path in ["/{a}{b}", "/{a", "/a}", "/x{}"] {
        assert!(Route::parse(1, "GET", path).is_err(), "{path}");
    }
}
