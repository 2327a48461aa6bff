def partner(settings):
    other = {"standard": "mixed", "mixed": "standard"}[settings["supervision"]]
    return {**settings, "supervision": other}
