"""What seasons are made of: jobs, prices, requesters and rivals. Fixed before any strategy was tuned.

Tuning uses seeds from 1001 on and the sets "even", "keen" and "dear". The set "unseen" and the seeds 1 to 20 are
for the table alone.
"""

# Dollars for a million tokens; a token of the stand-in's vendor is a word.
PRICE = {"input": 15, "output": 75}

ARRIVALS_PER_SECOND = 400
OPEN_MS = 1000
REWARD_TIMEOUT_MS = 3000

# The vendor repeats the prompt, cut at max_tokens. The first class costs less than the least bid of a cent, the
# third four times as much: who asks a cent for all of them loses.
CLASSES = [
    {"name": "short", "weight": 50, "prompt_words": [10, 100], "max_tokens": [20, 80], "credit": [0.02, 0.2],
     "stream_permille": 300},
    {"name": "middle", "weight": 30, "prompt_words": [100, 300], "max_tokens": [100, 300], "credit": [0.03, 0.3],
     "stream_permille": 300},
    {"name": "long", "weight": 15, "prompt_words": [300, 800], "max_tokens": [300, 600], "credit": [0.05, 0.5],
     "stream_permille": 300},
    {"name": "unbounded", "weight": 5, "prompt_words": [50, 200], "credit": [0.05, 0.5], "calls": [1, 2]},
]

# For the daily loss limit.
DEAR_CLASSES = [
    {"name": "long", "weight": 1, "prompt_words": [300, 800], "max_tokens": [300, 600], "credit": [0.05, 0.5],
     "stream_permille": 300},
]

REQUESTERS = {"in_full": 8, "late": 1, "never": 1, "percentage_reward": [1, 0.5], "report_ms": 50, "late_ms": 1000,
              # A busy machine is no slow provider.
              "call_timeout_ms": 60000, "slow_ms": 60000}

RIVALS = {
    # Four who pay what we pay and want more or less of it.
    "even": [
        {"kind": "cost_plus", "input_per_million": 15, "output_per_million": 75, "margin_permille": 200,
         "noise_permille": 150, "absent_permille": 500},
        {"kind": "cost_plus", "input_per_million": 15, "output_per_million": 75, "margin_permille": 400,
         "noise_permille": 150, "absent_permille": 300},
        {"kind": "cost_plus", "input_per_million": 15, "output_per_million": 75, "margin_permille": 800,
         "noise_permille": 150, "absent_permille": 200},
        {"kind": "flat", "price": 0.05, "absent_permille": 500},
    ],
    # One who is nearly always there and hardly earns anything, and one who undercuts whom it sees.
    "keen": [
        {"kind": "cost_plus", "input_per_million": 15, "output_per_million": 75, "margin_permille": 100,
         "noise_permille": 100, "absent_permille": 200},
        {"kind": "cost_plus", "input_per_million": 15, "output_per_million": 75, "margin_permille": 500,
         "noise_permille": 200, "absent_permille": 200},
        {"kind": "aggressive", "undercut_permille": 50, "floor": 0.012, "absent_permille": 600},
    ],
    # Few, with vendors that are twice and three times as dear.
    "dear": [
        {"kind": "cost_plus", "input_per_million": 30, "output_per_million": 150, "margin_permille": 200,
         "noise_permille": 200, "absent_permille": 400},
        {"kind": "cost_plus", "input_per_million": 45, "output_per_million": 225, "margin_permille": 300,
         "noise_permille": 200, "absent_permille": 400},
        {"kind": "flat", "price": 0.1, "absent_permille": 300},
    ],
    # All kinds, with other figures than those above.
    "unseen": [
        {"kind": "cost_plus", "input_per_million": 10, "output_per_million": 60, "margin_permille": 600,
         "noise_permille": 300, "absent_permille": 400},
        {"kind": "cost_plus", "input_per_million": 20, "output_per_million": 100, "margin_permille": 250,
         "noise_permille": 100, "absent_permille": 350},
        {"kind": "flat", "price": 0.03, "absent_permille": 700},
        {"kind": "aggressive", "undercut_permille": 100, "floor": 0.02, "absent_permille": 700},
    ],
}

STRATEGIES = ("minimum", "margin", "adaptive")

# What the day may lose in the seasons that show the limit.
LIMIT_USD = "2.00"
