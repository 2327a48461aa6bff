rows = """patient,class,first_z,last_z
Brats18_PHANTOM_006_1,whole_tumor,29,53
"""
