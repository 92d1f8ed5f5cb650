//! What the plan tells the mapping of its answer.

/// Handed back by the host, as bytes, in `context.carry`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Carry {
    /// The client asked for a chunk with usage at the end of the stream.
    pub include_usage: bool,
}

impl Carry {
    pub fn to_bytes(self) -> Vec<u8> {
        vec![u8::from(self.include_usage)]
    }

    pub fn from_bytes(bytes: &[u8]) -> Carry {
        Carry { include_usage: bytes == [1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_give_the_same_again() {
        for include_usage in [false, true] {
            let carry = Carry { include_usage };
            assert_eq!(Carry::from_bytes(&carry.to_bytes()), carry);
        }
    }
}
