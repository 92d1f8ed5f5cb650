use sluice_plugin::bid::{ClosedBid, Outcome, most, per_hundred};

use super::*;

const COST: u64 = 100_000_000;

fn adaptive(config: &str) -> Adaptive {
    let setup = Setup { config_json: config.into(), names: Vec::new(), targets: Vec::new() };
    Adaptive::configure(setup).unwrap()
}

/// A market with one rival, whose price is a multiple of the cost, per mille; and what jobs cost of
/// what is expected.
struct Market {
    rival_permille: u64,
    cost_percent: u64,
}

/// What became of jobs that were decided one after the other.
struct Season {
    book: Book,
    profit: i128,
    bids: Vec<u64>,
}

impl Season {
    fn new() -> Season {
        Season { book: empty_book(), profit: 0, bids: Vec::new() }
    }

    /// Goes on for so many jobs; profit and bids are those of this stretch.
    fn goes_on(&mut self, strategy: &Adaptive, market: &Market, jobs: u32) {
        (self.profit, self.bids) = (0, Vec::new());
        for number in 0..jobs {
            let mut job = sample_job(0, 40 * COST, COST + u64::from(number % 7) * 1_000);
            job.prompt_tokens = number;
            let expected = job.targets[0].expected;
            let decided = strategy.decide(&self.book, &[job.clone()], &[""; 0]).unwrap();
            let Decision::Bid(bid) = decided[0].1 else { panic!("{decided:?}") };
            self.bids.push(bid * 1_000 / expected);
            let wins = bid * 1_000 < expected * market.rival_permille;
            let actual = if wins { per_hundred(expected, market.cost_percent) } else { 0 };
            let (earned, outcome) = if wins { (bid, Outcome::Paid) } else { (0, Outcome::Lost) };
            self.profit += i128::from(earned) - i128::from(actual);
            if wins {
                self.book.wins += 1
            } else {
                self.book.losses += 1
            }
            self.book.recent.push(ClosedBid { credit: job.credit, bid, expected, actual, earned, outcome });
            let old = self.book.recent.len().saturating_sub(256);
            self.book.recent.drain(..old);
        }
    }

    /// The price that was asked for most often.
    fn usual(&self) -> u64 {
        let times = |price: &u64| self.bids.iter().filter(|bid| *bid == price).count();
        *self.bids.iter().max_by_key(|price| times(price)).unwrap()
    }
}

/// Against a rival at any price it comes to ask for most of what can be earned there.
#[test]
fn it_finds_the_price_that_pays() {
    let strategy = adaptive(r#"{"worst_share_percent": 0}"#);
    for rival_permille in [1_300, 1_600, 2_000, 3_000, 5_000] {
        let market = Market { rival_permille, cost_percent: 100 };
        let mut season = Season::new();
        season.goes_on(&strategy, &market, 400);
        season.goes_on(&strategy, &market, 200);
        // Prices are a fifth apart, and one in ten bids is for learning.
        let step = STEPS.iter().rev().find(|step| **step < rival_permille).unwrap();
        let best = i128::from(step.max(&1_100) - 1_000) * i128::from(COST / 1_000) * 200;
        let part = season.profit * 100 / best;
        assert!(part >= 80, "rival at {rival_permille}: {part} percent, usually {}", season.usual());
    }
}

/// Rivals ask the least that the market takes for small jobs: who asks a little more wins none.
#[test]
fn it_asks_for_the_least_where_nothing_above_wins() {
    let strategy = adaptive(r#"{"worst_share_percent": 0}"#);
    let mut season = Season::new();
    season.goes_on(&strategy, &Market { rival_permille: 1_101, cost_percent: 100 }, 100);
    season.goes_on(&strategy, &Market { rival_permille: 1_101, cost_percent: 100 }, 100);
    assert_eq!(season.usual(), 1_100);
    assert!(season.profit > 0);
}

/// A rival who gives up leaves room above, one who comes takes it away: both are noticed.
#[test]
fn it_follows_a_market_that_changes() {
    let strategy = adaptive(r#"{"worst_share_percent": 0}"#);
    let (cheap, dear) = (
        Market { rival_permille: 1_400, cost_percent: 100 },
        Market { rival_permille: 3_000, cost_percent: 100 },
    );
    let mut season = Season::new();
    season.goes_on(&strategy, &cheap, 400);
    let low = season.usual();
    assert!(low < 1_400, "{low}");
    season.goes_on(&strategy, &dear, 600);
    season.goes_on(&strategy, &dear, 100);
    let high = season.usual();
    assert!((2_000..3_000).contains(&high), "{high}");
    season.goes_on(&strategy, &cheap, 300);
    season.goes_on(&strategy, &cheap, 100);
    assert!(season.usual() < 1_400 && season.profit > 0, "{}", season.usual());
}

/// Jobs cost half as much again as expected: a bid at cost and margin of the estimate would lose.
#[test]
fn it_corrects_costs_that_are_estimated_too_low() {
    let strategy = adaptive(r#"{"worst_share_percent": 0}"#);
    let market = Market { rival_permille: 2_000, cost_percent: 150 };
    let mut season = Season::new();
    season.goes_on(&strategy, &market, 100);
    season.goes_on(&strategy, &market, 200);
    assert!(season.bids.iter().all(|bid| *bid >= 1_600), "{:?}", season.bids);
    assert!(season.profit > 0);
}

/// Over books and jobs of all kinds: a bid keeps to floor, ceiling and credit, and is not below the
/// cost, as corrected, with its margin.
#[test]
fn no_bid_breaks_a_bound() {
    let strategy = adaptive(r#"{"floor_usd": "0", "worst_share_percent": 0, "explore_every": 2}"#);
    let mut bits = 1;
    let mut random = |bound: u64| {
        bits = mixed(bits);
        bits % bound
    };
    let mut bids = 0;
    for _ in 0..5_000 {
        let mut closed = || {
            let (bid, expected) = (random(3_000), random(1_500));
            let outcomes = [Outcome::Lost, Outcome::Paid, Outcome::Unpaid, Outcome::Failed];
            let outcome = outcomes[random(4) as usize];
            ClosedBid {
                credit: random(5_000),
                bid,
                expected,
                actual: random(3_000),
                earned: random(3_000),
                outcome,
            }
        };
        let recent: Vec<ClosedBid> = (0..20).map(|_| closed()).collect();
        let book = Book { wins: random(100) as u32, recent, ..empty_book() };
        let mut job = sample_job(3, random(4_000), random(2_000));
        (job.floor, job.ceiling) = (random(2_000), random(5_000));
        let decided = strategy.decide(&book, &[job.clone()], &[""; 0]).unwrap();
        assert_eq!(decided, strategy.decide(&book, &[job.clone()], &[""; 0]).unwrap(), "it is a function");
        let Decision::Bid(bid) = decided[0].1 else { continue };
        bids += 1;
        let cost = Lessons::of(&book.recent, Size::of(job.targets[0].expected)).cost(job.targets[0].expected);
        assert!(bid >= per_hundred(cost, 110), "{job:?}: {bid} does not cover {cost}");
        assert!(bid >= job.floor && bid <= most(&job), "{job:?}: {bid}");
    }
    assert!(bids > 500, "the control: {bids} bids");
}

#[test]
fn each_reason_has_its_code() {
    let strategy = adaptive(r#"{"worst_share_percent": 100, "explore_every": 0}"#);
    let of = |job: &Job, book: &Book| strategy.decide(book, &[job.clone()], &[""; 0]).unwrap()[0].1.clone();
    let book = empty_book();
    let mut nobody = sample_job(0, 40 * COST, COST);
    nobody.targets.clear();
    assert_eq!(of(&nobody, &book), Decision::Skip(code::NO_TARGET));
    assert_eq!(of(&sample_job(0, COST, COST), &book), Decision::Skip(code::CREDIT));
    assert_eq!(of(&sample_job(0, 3 * COST / 2, COST), &book), Decision::Skip(code::WORST));
    let mut capped = sample_job(0, 40 * COST, COST);
    capped.ceiling = COST;
    assert_eq!(of(&capped, &book), Decision::Skip(code::CEILING));
}

/// Where nobody pays, it bids no more, but for the one job in so many that would show a change.
#[test]
fn it_stops_where_winners_are_not_paid_and_keeps_looking() {
    let closed = ClosedBid {
        credit: 3 * COST,
        bid: 2 * COST,
        expected: COST,
        actual: COST,
        earned: 0,
        outcome: Outcome::Unpaid,
    };
    let book = Book { recent: vec![closed; 256], ..empty_book() };
    let strategy = adaptive(r#"{"worst_share_percent": 0}"#);
    let jobs: Vec<Job> = (0..1_000)
        .map(|number| Job { prompt_tokens: number, ..sample_job(number, 3 * COST, COST) })
        .collect();
    let decided = strategy.decide(&book, &jobs, &[""; 0]).unwrap();
    let skipped = decided.iter().filter(|(_, decision)| *decision == Decision::Skip(code::NO_PROFIT)).count();
    assert!((850..950).contains(&skipped), "{skipped}");
    let never = adaptive(r#"{"worst_share_percent": 0, "explore_every": 0}"#);
    let decided = never.decide(&book, &jobs, &[""; 0]).unwrap();
    assert!(decided.iter().all(|(_, decision)| *decision == Decision::Skip(code::NO_PROFIT)));
}

#[test]
fn it_tests_itself() {
    assert_eq!(Adaptive::self_test(), Ok(()));
}
