//! Which of several strategies a job belongs to: each has its share of them, and a job keeps its own
//! over restarts, so that each strategy has results of its own.

/// The place of the strategy that decides about this job; none where nobody has a share.
pub fn of(job: &str, shares: &[u32]) -> Option<usize> {
    let total: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    let mut point = spread(job.as_bytes()).checked_rem(total)?;
    shares.iter().position(|share| match point.checked_sub(u64::from(*share)) {
        Some(rest) => {
            point = rest;
            false
        }
        None => true,
    })
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo), the same on every machine, and the finish of `MurmurHash3`
/// (Appleby), since ids of markets differ in few letters.
fn spread(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_and_jobs_keep_theirs() {
        let shares = [1, 0, 3];
        let mut counts = [0_u32; 3];
        for job in 0..8000 {
            let id = format!("00000000-0000-0000-0000-{job:012}");
            let place = of(&id, &shares).unwrap();
            assert_eq!(of(&id, &shares), Some(place));
            counts[place] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((1850..2150).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn where_nobody_has_a_share_nobody_decides() {
        assert_eq!(of("a", &[]), None);
        assert_eq!(of("a", &[0, 0]), None);
        assert!(of("a", &[u32::MAX, u32::MAX]).is_some());
    }
}
