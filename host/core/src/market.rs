//! What the host lets a bid strategy do in a market: which jobs it is shown, which bids are made, and
//! when bidding pauses. No rule here says what a job is worth; that is the strategies'.

pub mod guard;
pub mod pause;
pub mod refusals;
pub mod shares;
