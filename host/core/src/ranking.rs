//! What a policy is shown, in which order the host itself would go, and what a ranking
//! must be to be followed.

/// `budget_left` without a cap: the largest number that JavaScript guests see exactly.
pub const NO_CAP: u64 = (1 << 53) - 1;

/// `expected` and `worst` without a price: no cost that is known is as large.
pub const NO_PRICE: u64 = (1 << 53) - 1;

/// One request, as a policy sees it. Fields and units as in `wit/routing-policy.wit`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "documented field by field in wit/routing-policy.wit")]
pub struct View {
    pub tenant: u32,
    pub model: u32,
    pub endpoint: u16,
    pub streaming: bool,
    pub seq: u64,
    pub seed: u64,
    pub now_ms: u64,
    pub session: u64,
    pub prefix: u64,
    pub budget_left: u64,
    pub deadline_ms: u32,
    pub needs: u64,
}

/// A target that may be used now. Fields and units as in `wit/routing-policy.wit`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "documented field by field in wit/routing-policy.wit")]
pub struct Candidate {
    pub id: u32,
    pub priority: u16,
    pub weight: u16,
    pub expected: u64,
    pub worst: u64,
    pub ewma_ttft_us: u32,
    pub ewma_total_us: u32,
    pub samples: u32,
    pub success_permille: u16,
    pub inflight: u32,
    pub breaker: u8,
}

/// What a policy answered, checked: positions into the candidates it was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// At least one, none twice.
    pub order: Vec<usize>,
    /// The policy's own code for why.
    pub reason: u16,
}

/// How a ranking breaks the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RankingBreach {
    /// Nobody is left to ask.
    #[error("ranked nobody")]
    Empty,
    /// An id that was not among the candidates.
    #[error("ranked {0}, which is no candidate")]
    Stranger(u32),
    /// An id named more than once.
    #[error("ranked {0} twice")]
    Twice(u32),
}

impl Ranking {
    /// Takes a policy's order of ids.
    ///
    /// # Errors
    ///
    /// A [`RankingBreach`]; the host then goes by its own order.
    pub fn check(order: &[u32], reason: u16, candidates: &[Candidate]) -> Result<Ranking, RankingBreach> {
        if order.is_empty() {
            return Err(RankingBreach::Empty);
        }
        let mut positions = Vec::with_capacity(order.len().min(candidates.len()));
        let mut seen = vec![false; candidates.len()];
        for id in order {
            let position = position(*id, candidates).ok_or(RankingBreach::Stranger(*id))?;
            if std::mem::replace(&mut seen[position], true) {
                return Err(RankingBreach::Twice(*id));
            }
            positions.push(position);
        }
        Ok(Ranking { order: positions, reason })
    }
}

/// While nobody is left out, an id is its place.
fn position(id: u32, candidates: &[Candidate]) -> Option<usize> {
    let guess = usize::try_from(id).ok()?;
    if candidates.get(guess).is_some_and(|candidate| candidate.id == id) {
        return Some(guess);
    }
    candidates.iter().position(|candidate| candidate.id == id)
}

/// The host's own order: by priority, by expected cost (the unpriced last), by place. It
/// answers where a policy does not.
pub fn native_order(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&position| {
        let candidate = &candidates[position];
        (candidate.priority, candidate.expected)
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(ids: &[u32]) -> Vec<Candidate> {
        ids.iter().map(|&id| Candidate { id, ..Candidate::default() }).collect()
    }

    #[test]
    fn a_ranking_names_candidates_each_once_and_at_least_one() {
        let known = candidates(&[7, 8, 9]);
        let check = |order: &[u32]| Ranking::check(order, 0, &known).map(|ranking| ranking.order);
        assert_eq!(check(&[9, 7]), Ok(vec![2, 0]));
        assert_eq!(check(&[]), Err(RankingBreach::Empty));
        assert_eq!(check(&[7, 1]), Err(RankingBreach::Stranger(1)));
        assert_eq!(check(&[8, 8]), Err(RankingBreach::Twice(8)));
    }

    #[test]
    fn an_endless_ranking_is_refused_at_its_first_breach() {
        let order: Vec<u32> = std::iter::repeat_n(7, 100_000).collect();
        assert_eq!(Ranking::check(&order, 0, &candidates(&[7])), Err(RankingBreach::Twice(7)));
    }

    #[test]
    fn native_order_is_priority_then_price_then_place() {
        let mut known = candidates(&[0, 1, 2, 3]);
        (known[0].priority, known[2].expected) = (2, NO_PRICE);
        (known[1].expected, known[3].expected) = (9, 5);
        assert_eq!(native_order(&known), vec![3, 1, 2, 0]);
        assert_eq!(native_order(&candidates(&[5, 4])), vec![0, 1]);
    }
}
