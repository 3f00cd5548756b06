"""The dream player: one page, without a network, in which a person acts inside an agent's dream.

`weights` takes from an agent what dreams need, `reality` records a real episode to compare with,
and `page` puts both into one file with the sources in `static/`.
"""
