//! Model 4: Canvass (promise L4, and half of L1), as an enumeration of *situations*: who is alive, which pairs of members
//! and which members and the API can talk, between which pairs WAL flows. A situation lasts; the question is what the
//! members do in it. No clock: "within D" has passed everywhere. One set, leader = member 0, one pending configuration.
pub(crate) struct Situation {
    pub(crate) n: usize,
    pub(crate) w: u8,
    pub(crate) alive: u16,
    pub(crate) talk: [u16; 6],
    pub(crate) wal: [u16; 6],
    pub(crate) api: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    Silence,     // no canvass: whoever has not heard the leader opens an epoch
    NoSayers,    // those who have not heard the leader must suffice to seal and to activate
    Quorate, // the same, but a leader says whether a quorum streams from it, and one that has none counts as not heard
    Probed,  // Quorate, and some member reached has been reached on its PostgreSQL port by W others
    AnyMajority, // a majority of those reached has not heard the leader
}

impl Rule {
    fn quorate(self) -> bool {
        matches!(self, Rule::Quorate | Rule::Probed)
    }
}

fn bit(m: u16, i: usize) -> bool {
    m >> i & 1 == 1
}

impl Situation {
    fn followers(&self) -> u16 {
        ((1 << self.n) - 1) & !1
    }
    /// Members that stream from `l` if it leads.
    fn streams(&self, l: usize) -> u8 {
        (self.wal[l] & self.alive & !(1 << l)).count_ones() as u8
    }
    pub(crate) fn quorate(&self) -> bool {
        bit(self.alive, 0) && self.streams(0) >= self.w
    }
    fn hears(&self, i: usize, rule: Rule) -> bool {
        bit(self.alive, 0) && bit(self.talk[i], 0) && (!rule.quorate() || self.quorate())
    }
    fn seals(&self, m: u16) -> bool {
        bit(m, 0) || (m & self.followers()).count_ones() as u8 + self.w > self.n as u8 - 1
    }
    /// Does member `i` open an epoch?
    pub(crate) fn opens(&self, i: usize, rule: Rule) -> bool {
        if i == 0 || !bit(self.alive, i) || !bit(self.api, i) || self.hears(i, rule) {
            return false;
        }
        let reached = (0..self.n)
            .filter(|&j| bit(self.alive, j) && (j == i || bit(self.talk[i], j)))
            .fold(0u16, |m, j| m | 1 << j);
        // the old leader, if it can be asked and has no quorum, says so itself
        let no = (0..self.n)
            .filter(|&j| {
                bit(reached, j) && if j == 0 { rule.quorate() && !self.quorate() } else { !self.hears(j, rule) }
            })
            .fold(0u16, |m, j| m | 1 << j);
        match rule {
            Rule::Silence => true,
            Rule::AnyMajority => 2 * no.count_ones() > reached.count_ones(),
            Rule::Probed if !self.succeeds(i) => false,
            _ => self.seals(no) && no.count_ones() as u8 > self.w,
        }
    }
    /// Could a new epoch opened by `i` become active? It must reach pledges that seal, and a member that can win
    /// (here: any of them) must get W streams among those reached.
    fn succeeds(&self, i: usize) -> bool {
        if i == 0 || !bit(self.alive, i) || !bit(self.api, i) {
            return false;
        }
        let reached = (0..self.n)
            .filter(|&j| bit(self.alive, j) && (j == i || bit(self.talk[i], j)))
            .fold(0u16, |m, j| m | 1 << j);
        self.seals(reached)
            && (0..self.n)
                .filter(|&l| bit(reached, l) && bit(self.api, l))
                .any(|l| (self.wal[l] & reached & !(1 << l)).count_ones() as u8 >= self.w)
    }
}

/// What a rule comes to.
#[derive(Default)]
pub(crate) struct Count {
    /// Situations.
    pub(crate) all: u64,
    /// An epoch is opened although a quorum streams.
    pub(crate) unstable: u64,
    /// A leader without a quorum is not replaced although others could lead.
    pub(crate) livelock: u64,
    /// An epoch is opened that cannot become active.
    pub(crate) futile: u64,
    /// One situation of the first two kinds each.
    pub(crate) example: [Option<String>; 2],
}

/// Enumerates every symmetric network of `n` members. `ports`: WAL may be blocked between members that can talk.
pub(crate) fn count(n: usize, w: u8, rule: Rule, ports: bool) -> Count {
    let mut c = Count::default();
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|i| (0..i).map(move |j| (j, i))).collect();
    let links = 1u32 << pairs.len();
    for alive in 0..1u16 << n {
        for api in 0..1u16 << n {
            if api & !alive != 0 {
                continue;
            }
            for net in 0..links {
                if pairs.iter().enumerate().any(|(k, p)| net >> k & 1 == 1 && !(bit(alive, p.0) && bit(alive, p.1))) {
                    continue;
                }
                let mut blocked = 0u32;
                loop {
                    // subsets of the links
                    let mut s = Situation { n, w, alive, talk: [0; 6], wal: [0; 6], api };
                    for (k, &(a, b)) in pairs.iter().enumerate() {
                        if net >> k & 1 == 1 {
                            s.talk[a] |= 1 << b;
                            s.talk[b] |= 1 << a;
                            if blocked >> k & 1 == 0 {
                                s.wal[a] |= 1 << b;
                                s.wal[b] |= 1 << a
                            }
                        }
                    }
                    let opened = (0..n).any(|i| s.opens(i, rule));
                    c.all += 1;
                    let text = || {
                        format!(
                            "alive={alive:b} api={api:b} links={:?} blocked for WAL={:?}",
                            pairs
                                .iter()
                                .enumerate()
                                .filter(|(k, _)| net >> k & 1 == 1)
                                .map(|x| *x.1)
                                .collect::<Vec<_>>(),
                            pairs
                                .iter()
                                .enumerate()
                                .filter(|(k, _)| blocked >> k & 1 == 1)
                                .map(|x| *x.1)
                                .collect::<Vec<_>>()
                        )
                    };
                    if opened && s.quorate() {
                        c.unstable += 1;
                        c.example[0].get_or_insert_with(text);
                    }
                    if !opened && !s.quorate() && (0..n).any(|i| s.succeeds(i)) {
                        c.livelock += 1;
                        c.example[1].get_or_insert_with(text);
                    }
                    if opened && !(0..n).any(|i| s.succeeds(i)) {
                        c.futile += 1
                    }
                    if !ports {
                        break;
                    }
                    blocked = (blocked.wrapping_sub(net)) & net;
                    if blocked == 0 {
                        break;
                    }
                }
            }
        }
    }
    c
}

pub(crate) fn run() {
    for rule in [Rule::Silence, Rule::AnyMajority, Rule::NoSayers, Rule::Quorate, Rule::Probed] {
        for ports in [false, true] {
            for (n, w) in [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (5, 1), (5, 2), (5, 3)] {
                let c = count(n, w, rule, ports);
                println!(
                    "canvass {rule:?} n={n} w={w} WAL blocked apart from talk={ports}: {} situations, opened although a quorum streams: {}, stalled and never replaced: {}, opened in vain: {}",
                    c.all, c.unstable, c.livelock, c.futile
                );
                if let Some(x) = &c.example[0] {
                    println!("    unstable, e.g. {x}")
                }
                if let Some(x) = &c.example[1] {
                    println!("    livelock, e.g. {x}")
                }
            }
        }
    }
}
