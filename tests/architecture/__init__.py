"""The rules of CONTRIBUTING.md and ARCHITECTURE.md as tests, which read syntax trees and run none of the source.

Each `*_rules.py` holds rules, with their licences, and for each rule an example that it must catch. A licence that
nothing needs any more fails as well. To change a rule, change it here and on the page, in the commit that needs it.
"""
