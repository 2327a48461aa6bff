roles = {"tested": 285 // 5, "fully annotated": 15, "weakly annotated": 285 - 285 // 5 - 15}
